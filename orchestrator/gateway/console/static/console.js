// Keeps the parts of a page live that have `data-live`, unless somebody pauses it, or looks elsewhere.
(() => {
  const button = document.getElementById("live");
  const interrupted = document.getElementById("interrupted");
  // Filters that are open fill a narrow window.
  const narrow = window.matchMedia("(max-width: 40rem)");
  const fold = () => {
    for (const part of document.querySelectorAll("details.fold")) part.open = !narrow.matches;
  };
  narrow.addEventListener("change", fold);
  fold();
  let paused = false;
  const isLive = (event) => event.detail?.ctx?.sourceElement?.matches?.("[data-live]");
  if (button && document.querySelector("[data-live]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.textContent = paused ? "Resume updates" : "Pause updates";
    });
  }
  document.addEventListener("htmx:before:request", (event) => {
    if (isLive(event) && (paused || document.hidden)) event.preventDefault();
  });
  const tell = (failed) => (event) => {
    if (isLive(event)) interrupted.hidden = !failed;
  };
  document.addEventListener("htmx:error", tell(true));
  document.addEventListener("htmx:response:error", tell(true));
  document.addEventListener("htmx:after:swap", tell(false));
})();
