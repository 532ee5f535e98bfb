// Names and roles that the theme and docutils give wrongly: what is read aloud must say what is seen.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary, .search-button-field").forEach((element) => element.removeAttribute("aria-label"));
  document.querySelectorAll("i.theme-switch").forEach((icon) => icon.removeAttribute("title"));
  document.querySelectorAll(".theme-switch title").forEach((title) => title.remove());
  document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));
});
