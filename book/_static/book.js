// Names and roles that the theme and docutils give wrongly: what is read aloud must say what is seen.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary, .search-button-field").forEach((element) => {
    if (element.textContent.trim()) element.removeAttribute("aria-label");
    else element.setAttribute("aria-label", "Pages below this one"); // an arrow in the sidebar
  });
  // Font Awesome draws these icons whenever it is ready, each with a title; the button around them has the name
  document.querySelectorAll(".theme-switch-button").forEach((button) => {
    const unnamed = () => {
      button.querySelectorAll("title").forEach((title) => title.remove());
      button.querySelectorAll("svg").forEach((icon) => icon.setAttribute("aria-hidden", "true"));
    };
    button.querySelectorAll(".theme-switch").forEach((icon) => icon.removeAttribute("title"));
    new MutationObserver(unnamed).observe(button, { childList: true, subtree: true });
    unnamed();
  });
  document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));
});
