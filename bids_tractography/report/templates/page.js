/* Buttons that copy the text before them. */
"use strict";
for (const button of document.querySelectorAll("button.copy")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.previousElementSibling.innerText);
      button.textContent = "Copied";
    } catch { button.textContent = "Select the text to copy it"; }
  });
}
