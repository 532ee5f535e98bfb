// Names and roles that the theme and docutils give wrongly: what is read aloud must say what is seen.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary, .search-button-field").forEach((element) => element.removeAttribute("aria-label"));
  // Font Awesome turns these icons into pictures, before or after this runs; the button around them has the name
  document.querySelectorAll(".theme-switch").forEach((icon) => {
    icon.setAttribute("aria-hidden", "true");
    icon.removeAttribute("title");
    icon.querySelector("title")?.remove();
  });
  document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));
});
