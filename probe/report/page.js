(() => {
  const { spec, configs } = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("picture");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let shown, asked;
  async function draw() {
    const width = Math.max(360, place.clientWidth - 330);
    for (const part of spec.vconcat) part.width = width;
    const config = { ...spec.config, ...configs[dark.matches ? "dark" : "light"] };
    if (shown) shown.finalize();
    shown = await vegaEmbed(place, { ...spec, config }, { ast: true, actions: false, renderer: "canvas" });
    document.documentElement.dataset.drawn = Math.round(performance.now());
  }
  dark.addEventListener("change", draw);
  addEventListener("resize", () => { clearTimeout(asked); asked = setTimeout(draw, 200); });
  draw();
})();
