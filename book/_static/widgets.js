// Shows the Jupyter widgets of a page from the state stored in it, without a kernel and without a network.
// The widgets are those of the installed ipywidgets: pcamlib.offline copies widgetsnbextension's script beside this
// one. That script expects the classic notebook, so it is given the little of it that it touches; what a page needs
// of a widget manager (get_model, create_view) is below.
(() => {
  const here = document.currentScript.src;

  function load() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("jupyter-widgets.js", here);
      script.onerror = () => reject(new Error(`${script.src} cannot be loaded`));
      const notebook = { container: { on() {} }, keyboard_manager: { actions: { register() {} } } };
      window.Jupyter = { version: "6.5.0", notebook };
      window.requirejs = (names, done) =>
        done(window.Jupyter, { on() {} }, { OutputArea: { prototype: { register_mime_type() {} } } });
      window.requirejs.config = () => {};
      window.define = (names, factory) => {
        const library = factory({ uri: script.src });
        delete window.define; // other scripts of the page must not take this for RequireJS
        library.load_ipython_extension().then(() => resolve(library), reject); // adds the style sheets
      };
      document.head.append(script);
    });
  }

  class Manager {
    constructor(library, state) {
      Object.assign(this, { library, state, models: {} });
    }
    get_model(id) {
      return (this.models[id] ??= this.make(id));
    }
    async make(id) {
      const { model_name, state } = this.state[id];
      const Model = this.library[model_name];
      return new Model(await Model._deserialize_state(state, this), { model_id: id, widget_manager: this });
    }
    async create_view(model, options = {}) {
      const View = this.library[model.get("_view_name")];
      const view = new View({ model, options });
      view.listenTo(model, "destroy", view.remove);
      await view.render();
      return view;
    }
    callbacks() {
      return {};
    }
  }

  // What ipywidgets leaves out for readers who listen or use the keyboard: names for sliders, news of the picture.
  function describe(root) {
    for (const slider of root.querySelectorAll(".widget-slider")) {
      const name = slider.querySelector(".widget-label")?.textContent || "slider";
      slider.querySelectorAll("[role=slider]").forEach((handle) => handle.setAttribute("aria-label", name));
    }
    root.querySelectorAll(".linked-frames-stack").forEach((stack) => stack.setAttribute("aria-live", "polite"));
  }

  async function show() {
    if (window.MathJax) window.MathJax.Hub ??= { Queue() {} }; // ipywidgets asks version 2 to typeset its labels
    const stored = document.querySelector('script[type="application/vnd.jupyter.widget-state+json"]');
    const library = await load();
    // words, because the theme's Font Awesome replaces the icons that ipywidgets means to change
    library.PlayView.prototype.updatePlaying = function () {
      this.playPauseButton.textContent = this.model.get("playing") ? "Pause" : "Play";
      this.stopButton.textContent = "Reset";
    };
    const manager = new Manager(library, JSON.parse(stored.textContent).state);
    // links have no view, so every model is made, seen or not
    await Promise.all(Object.keys(manager.state).map((id) => manager.get_model(id)));
    for (const place of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
      const view = await manager.create_view(await manager.get_model(JSON.parse(place.textContent).model_id));
      const element = document.createElement("div");
      element.className = "jupyter-widgets-place";
      place.after(element);
      library.JupyterLuminoWidget.attach(view.luminoWidget, element);
      await view.displayed;
      describe(element);
    }
    document.documentElement.dataset.widgets = "ready";
  }

  document.addEventListener("DOMContentLoaded", () => show().catch((error) => console.error(error)));
})();
