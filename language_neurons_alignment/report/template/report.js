"use strict";
// Draws the page's figures with plotly, and again when filters, colour scheme, window or printer change.
(() => {
  const page = JSON.parse(document.getElementById("page-payload").textContent);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const chosen = { languages: new Set(page.languages), from: 0, to: page.layers - 1 };
  const PRINTED_WIDTH = 690; // of an A4 sheet, in CSS pixels
  const EDGES = 190; // beside a heatmap: names, colour bar
  let printing = false;

  const theme = () => page.themes[scheme.matches && !printing ? "dark" : "light"];
  const count = (n) => Array.from({ length: n }, (_, i) => i);
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // The places of an axis that the filters leave.
  function kept(axis) {
    const wanted = {
      language: (key) => chosen.languages.has(key),
      layer: (key) => key >= chosen.from && key <= chosen.to,
    }[axis.kind];
    return count(axis.keys.length).filter((i) => !wanted || wanted(axis.keys[i]));
  }

  const long = (axis) => Math.max(...axis.names.map((name) => name.length));

  // An axis with as many of its places named as there is room for.
  function side(axis, places, room) {
    const needed = long(axis) > 3 ? 13 : 8 * long(axis) + 4;
    const every = [1, 2, 5, 10, 20, 50].find((step) => (step * room) / Math.max(places.length, 1) >= needed) || 100;
    const shown = count(places.length).filter((n) => n % every === 0);
    const names = shown.map((n) => escaped(axis.names[places[n]]));
    return { title: { text: escaped(axis.label), standoff: 8 }, tickmode: "array", tickvals: shown, ticktext: names,
             showgrid: false, zeroline: false, ticks: "", automargin: true };
  }

  const slant = (axis, cell) => (long(axis) > 3 && 7 * long(axis) > cell ? -45 : 0);

  // Each kind of chart as plotly data and layout.
  function heatmap(chart, colours, room) {
    const rows = kept(chart.rows), columns = kept(chart.columns);
    const pick = (table) => rows.map((i) => columns.map((j) => table[i][j]));
    const told = rows.map((i) => columns.map((j) =>
      [escaped(chart.rows.names[i]), escaped(chart.columns.names[j]), chart.exact[i][j]]));
    const texts = pick(chart.texts), dense = columns.length > 40;
    const letters = Math.max(1, ...texts.flat().map((text) => text.length));
    const scale = colours[chart.diverging ? "diverging" : "sequential"];
    const shapes = !chart.diagonal ? [] : rows.flatMap((i, n) => columns.flatMap((j, m) =>
      chart.rows.keys[i] !== chart.columns.keys[j] ? [] :
        [{ type: "rect", x0: m - 0.5, x1: m + 0.5, y0: n - 0.5, y1: n + 0.5, line: { color: colours.text, width: 1.5 } }]));
    const width = EDGES + columns.length * (dense ? 8 : Math.max(18, 4.8 * letters + 2));
    const cell = (Math.max(printing ? 0 : width, room) - EDGES) / Math.max(columns.length, 1);
    const height = Math.max(170, rows.length * (rows.length === columns.length ? 30 : 26)); // room for the colour bar
    return {
      data: [{
        type: "heatmap", x: count(columns.length), y: count(rows.length), z: pick(chart.values), customdata: told,
        text: texts, texttemplate: dense ? "" : "%{text}", textfont: { size: Math.min(11, Math.max(5, (cell - 2) / (0.58 * letters))) },
        hovertemplate: `${escaped(chart.rows.label)}: <b>%{customdata[0]}</b><br>${escaped(chart.columns.label)}: ` +
          `<b>%{customdata[1]}</b><br>${escaped(chart.label)}: <b>%{customdata[2]}</b><extra></extra>`,
        colorscale: scale.map((colour, n) => [n / (scale.length - 1), colour]),
        zmin: chart.diverging ? -chart.end : 0, zmax: chart.end, xgap: dense ? 0 : 1, ygap: 1, hoverongaps: true,
        colorbar: { title: { text: escaped(chart.label), side: "right", font: { size: 12 } }, thickness: 10, outlinewidth: 0,
                    tickvals: chart.ticks.map((tick) => tick[0]), ticktext: chart.ticks.map((tick) => tick[1]) },
      }],
      layout: {
        xaxis: { ...side(chart.columns, columns, cell * columns.length), range: [-0.5, columns.length - 0.5],
                 tickangle: slant(chart.columns, cell) },
        yaxis: { ...side(chart.rows, rows, 10 * height), range: [rows.length - 0.5, -0.5] },
        shapes, height: 150 + height,
        plot_bgcolor: colours.missing,
      },
      width,
      empty: !rows.length || !columns.length,
    };
  }

  function bars(chart, colours, room) {
    const places = kept(chart.x), lying = chart.horizontal;
    const width = lying ? 420 : 110 + places.length * (chart.numbers ? 22 : 9);
    const share = 1 / chart.panels.length, axes = {}, data = [];
    const legends = Math.max(...chart.panels.map((panel) => panel.series.length)) > 1;
    const [along, across] = lying ? ["y", "x"] : ["x", "y"];
    chart.panels.forEach((panel, n) => {
      const number = n ? String(n + 1) : "";
      axes[`${across}axis${number}`] = {
        title: { text: escaped(panel.label) }, tickformat: ",.10~r", gridcolor: colours.grid, zerolinecolor: colours.quiet, automargin: true,
        ...(panel.series.some((one) => one.values.some((value) => value)) ? {} : { range: [0, 1] }),
        ...(lying ? {} : { domain: [1 - (n + 1) * share + (n === chart.panels.length - 1 ? 0 : 0.03), 1 - n * share] }),
      };
      panel.series.forEach((one) => data.push({
        type: "bar", orientation: lying ? "h" : "v", name: escaped(one.name), legendgroup: one.name,
        showlegend: legends && !n, [`${across}axis`]: across + number,
        [along]: count(places.length), [across]: places.map((i) => one.values[i]),
        customdata: places.map((i) => [escaped(chart.x.names[i]), one.exact[i]]),
        hovertemplate: `${escaped(chart.x.label)} <b>%{customdata[0]}</b><br>${escaped(one.name)}: ` +
          `<b>%{customdata[1]}</b><extra></extra>`,
        text: chart.numbers ? places.map((i) => one.texts[i]) : undefined,
        textposition: "outside", cliponaxis: false, textfont: { size: places.length > 16 ? 9 : 11 },
        marker: { color: colours.inks[one.ink], line: { width: 0 },
                  pattern: legends ? { fillmode: "overlay", shape: page.hatches[one.ink], size: 5, solidity: 0.25, fgcolor: colours.paper } : {} },
      }));
    });
    const start = places.length ? places[0] : 0;
    axes[`${along}axis`] = {
      ...side(chart.x, places, lying ? Infinity : Math.max(room, width) - 110), range: lying ? [places.length - 0.4, -0.6] : [-0.6, places.length - 0.4],
      tickangle: lying ? 0 : slant(chart.x, (Math.max(room, width) - 110) / Math.max(places.length, 1)),
      ...(lying ? {} : { anchor: chart.panels.length > 1 ? `y${chart.panels.length}` : "y" }),
    };
    const height = lying ? 90 + 24 * places.length : 110 + Math.max(190, 150 * chart.panels.length) + (legends ? 20 : 0);
    return {
      data,
      layout: { ...axes, ...acrossLines(chart.marks, start, places.length, colours, "bottom"), height, bargap: 0.2,
                barmode: chart.stacked ? "relative" : "group", showlegend: legends },
      width,
      empty: !places.length,
    };
  }

  function lines(chart, colours) {
    const data = chart.series.map((one) => ({
      type: "scatter", mode: chart.steps ? "lines" : "lines+markers", name: escaped(one.name), x: chart.x, y: one.values,
      line: { color: colours.inks[one.ink], width: 2, shape: chart.steps ? "hv" : "linear", dash: page.dashes[one.ink] },
      hovertemplate: `${escaped(chart.xLabel)} <b>%{x:.6~f}</b><br>${escaped(one.name)}: <b>%{y:,}</b><extra></extra>`,
    }));
    return {
      data,
      layout: {
        xaxis: { title: { text: escaped(chart.xLabel) }, gridcolor: colours.grid, zeroline: false, automargin: true },
        yaxis: { title: { text: escaped(chart.yLabel) }, tickformat: ",.10~r", gridcolor: colours.grid, zerolinecolor: colours.quiet,
                 rangemode: "tozero", automargin: true },
        ...acrossLines(chart.marks, 0, Infinity, colours, "top"), height: 380, showlegend: data.length > 1,
      },
      width: 320, empty: false,
    };
  }

  function acrossLines(marks, start, places, colours, side) {
    const shown = marks.map((mark) => ({ at: mark.at - start, name: mark.name })).filter((mark) => mark.at < places && mark.at > -1);
    return {
      shapes: shown.map((mark) => ({ type: "line", x0: mark.at, x1: mark.at, yref: "paper", y0: 0, y1: 1,
                                     line: { color: colours.quiet, width: 1, dash: "dash" } })),
      annotations: shown.map((mark) => ({ x: mark.at, y: 1, yref: "paper", yanchor: side, xanchor: "left", showarrow: false,
                                          text: escaped(mark.name), font: { size: 11, color: colours.quiet } })),
    };
  }

  const kinds = { heatmap, bars, lines };

  function draw(figure) {
    const plot = figure.querySelector(".plot"), colours = theme();
    const view = figure.querySelector(".views input:checked");
    const chart = page.figures[figure.id][view ? Number(view.value) : 0];
    figure.classList.remove("nothing"); // a hidden figure has no width
    const room = printing ? PRINTED_WIDTH : plot.parentElement.clientWidth;
    const { data, layout, width, empty } = kinds[chart.kind](chart, colours, room);
    figure.classList.toggle("nothing", empty);
    if (empty) return;
    Plotly.react(plot, data, {
      width: printing ? room : Math.max(room, width), margin: { l: 10, r: 10, t: 30, b: 10 }, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.text },
      hoverlabel: { bgcolor: colours.paper, bordercolor: colours.quiet, font: { color: colours.text }, align: "left" },
      legend: { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom" }, dragmode: "zoom", ...layout,
    }, { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
         toImageButtonOptions: { format: "svg", filename: figure.id } });
  }

  const figures = [...document.querySelectorAll("section.figure")];
  const drawAll = () => { figures.forEach(draw); document.documentElement.dataset.drawn = String(figures.length); };

  // Filters.
  const boxes = [...document.querySelectorAll("#filter-languages input")];
  const [from, to] = ["filter-from", "filter-to"].map((id) => document.getElementById(id));

  function filtered() {
    chosen.languages = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    if (from) {
      const layer = (input, fallback) => (input.value === "" || isNaN(input.valueAsNumber) ? fallback : input.valueAsNumber);
      [chosen.from, chosen.to] = [layer(from, 0), layer(to, page.layers - 1)].sort((a, b) => a - b);
    }
    const layers = from ? `, layers ${chosen.from} to ${chosen.to}` : "";
    document.getElementById("filter-shown").textContent = `${chosen.languages.size} of ${boxes.length} languages${layers}`;
    drawAll();
  }

  function setAll(checked) { boxes.forEach((box) => { box.checked = checked; }); filtered(); }
  function reset() { if (from) { from.value = 0; to.value = page.layers - 1; } setAll(true); }

  document.getElementById("page-filters").addEventListener("input", filtered);
  document.getElementById("page-filters").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, act] of [["filter-all", () => setAll(true)], ["filter-none", () => setAll(false)], ["filter-reset", reset]])
    document.getElementById(id)?.addEventListener("click", act);
  figures.forEach((figure) => figure.querySelector(".views")?.addEventListener("input", () => draw(figure)));

  // Colour scheme, window size, printer.
  const print = (on) => { printing = on; drawAll(); };
  let waiting = 0;
  scheme.addEventListener("change", drawAll);
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => printing || drawAll(), 120); });
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  if (matchMedia("(max-width: 60rem)").matches) document.getElementById("page-controls").open = false;
  filtered();
})();
