// Small conveniences. Every page works without this file.
(() => {
  "use strict";

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // "Select all" in a list, and how many are ticked.
  const count = (form) => {
    const ticked = all("input[type=checkbox][data-row]:checked", form).length;
    all("[data-count]", form).forEach((place) => { place.textContent = String(ticked); });
    all("[data-needs-rows]", form).forEach((button) => { button.disabled = ticked === 0; });
  };
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box instanceof HTMLSelectElement && box.matches("[data-go]")) { box.form?.requestSubmit(); return; }
    if (!(box instanceof HTMLInputElement)) return;
    const form = box.closest("form");
    if (box.matches("[data-all]") && form) all("input[type=checkbox][data-row]", form).forEach((row) => { row.checked = box.checked; });
    if (form && box.matches("[data-all], [data-row]")) count(form);
  });
  // A form is sent once, however often its button is pressed; the server would not mind, but people wonder.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || form.method !== "post" || form.matches("[data-many]")) return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    setTimeout(() => all("button", form).forEach((button) => { button.disabled = true; }), 0);
  });
  window.addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => {
    delete form.dataset.sent;
    all("button", form).forEach((button) => { button.disabled = false; });
    all("form").forEach(count);
  }));

  // What is typed into a form with drafts is kept on the server while it is not saved: soon after typing, and before the page changes.
  const unsent = new Map();
  const keep = (form) => {
    clearTimeout(unsent.get(form));
    unsent.delete(form);
    const fields = new FormData(form);
    [...fields.entries()].filter(([, value]) => value instanceof File).forEach(([name]) => fields.delete(name));
    fields.set("action", "keep");
    const body = new URLSearchParams(fields).toString();
    // A browser takes no more than 64 KiB of what outlives a page.
    const headers = { "HX-Request": "true", "Content-Type": "application/x-www-form-urlencoded" };
    fetch(form.dataset.draft, { method: "post", body, headers, keepalive: body.length < 60000 }).catch(() => {});
  };
  const keepAll = () => [...unsent.keys()].forEach(keep);
  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-draft]");
    if (!form) return;
    clearTimeout(unsent.get(form));
    unsent.set(form, setTimeout(() => keep(form), 600));
  });
  document.addEventListener("submit", (event) => {
    clearTimeout(unsent.get(event.target));
    unsent.delete(event.target);
  });
  document.addEventListener("click", (event) => { if (event.target.closest?.("a[href]")) keepAll(); }, true);
  window.addEventListener("pagehide", keepAll);

  // What is left of a text's allowance.
  document.addEventListener("input", (event) => {
    const area = event.target;
    const place = area.dataset?.left && document.getElementById(area.dataset.left);
    if (place) place.textContent = String(area.maxLength - area.value.length);
  });
  document.addEventListener("DOMContentLoaded", () => {
    all("form").forEach(count);
    // A picture wider than its place begins in its middle, where the journey begins.
    all(".flow").forEach((place) => { place.scrollLeft = (place.scrollWidth - place.clientWidth) / 2; });
  });
  document.addEventListener("htmx:after:swap", (event) => {
    all("form").forEach(count);
    // The preview tells whose it is: mark that row, and on a phone, where it stands below the list, go to it.
    const preview = document.querySelector("[data-shows]");
    if (!preview) return;
    all("tr[data-contact]").forEach((row) => row.classList.toggle("chosen", row.dataset.contact === preview.dataset.shows));
    const box = preview.getBoundingClientRect();
    if (event.detail?.ctx?.target?.id === "preview" && (box.top > window.innerHeight || box.bottom < 0)) preview.scrollIntoView();
  });
})();
