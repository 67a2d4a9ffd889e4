(() => {
  const { spec, configs } = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("picture");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const zoomed = { unit: "overview_0", fields: [{ field: "a", channel: "x", type: "R" }] };
  let shown, asked;

  async function draw() {
    const width = Math.max(360, place.clientWidth - 330);
    for (const part of spec.vconcat) part.width = width;
    const config = { ...spec.config, ...configs[dark.matches ? "dark" : "light"] };
    if (shown) shown.finalize();
    shown = await vegaEmbed(place, { ...spec, config }, { ast: true, actions: false, renderer: "canvas" });
    document.documentElement.dataset.drawn = Math.round(performance.now());
  }

  for (const row of document.querySelectorAll("tr[data-from]")) {
    row.addEventListener("click", async () => {
      if (!shown) return;
      const span = [Number(row.dataset.from), Number(row.dataset.to)];
      await shown.view.data("zoom_store", [{ ...zoomed, values: [span] }]).runAsync();
      place.scrollIntoView({ behavior: "smooth" });
    });
  }
  dark.addEventListener("change", draw);
  addEventListener("resize", () => {
    clearTimeout(asked);
    asked = setTimeout(draw, 200);
  });
  draw();
})();
