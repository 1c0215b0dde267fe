"""The style sheet of the evaluation report: light or dark as the reader's system, and light on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f6f8; --ink: #1b1f24; --soft: #5c6570; --line: #d9dde3;
  --good: #2f6fc4; --anomalous: #d1591b; --bad: #b3261e; --fine: #1d7a46;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --panel: #1d2127; --ink: #e7eaee; --soft: #9aa4b0; --line: #333a43;
    --good: #6aa5f0; --anomalous: #f08a4b; --bad: #f2786f; --fine: #5ec98d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .2rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: .2rem 0 1rem; max-width: 50rem; }
.soft, .note { color: var(--soft); }
.mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85em; overflow-wrap: anywhere; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1.2rem 0; }
.tiles div { background: var(--panel); border-radius: .4rem; padding: .7rem .9rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.25; }
.tiles small { font-size: .9rem; font-weight: 400; color: var(--soft); }

nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; }
nav a { color: var(--good); text-decoration: none; }
nav a:hover { text-decoration: underline; }

.scale { margin: 1.2rem 0; font-size: .85rem; max-width: 36rem; }
.scale .bar { height: .9rem; border-radius: .2rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.scale .marks { display: flex; justify-content: space-between; color: var(--soft); }

.case {
  display: grid; grid-template-columns: 10.5rem 1fr; gap: .4rem 1rem; padding: .9rem 0;
  border-bottom: 1px solid var(--line); break-inside: avoid;
}
.case .facts { font-size: .9rem; }
.case .score { font-size: 1.5rem; font-weight: 600; line-height: 1.3; }
.verdict { display: inline-block; padding: 0 .5rem; border: 1px solid; border-radius: 1rem; font-size: .85rem; }
.verdict.wrong { color: var(--bad); font-weight: 600; }
.verdict.right { color: var(--fine); }
.panels { display: grid; grid-template-columns: repeat(4, minmax(0, 16rem)); gap: .5rem; }
.panels figure { margin: 0; }
.panels img { display: block; width: 100%; height: auto; border-radius: .2rem; }
.panels figcaption { font-size: .8rem; color: var(--soft); }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; margin: .5rem 0 1.2rem; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 400; font-size: .85rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total td { font-weight: 600; }
meter { width: 8rem; height: .9rem; vertical-align: middle; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1rem; }
.chart { margin: 0; padding: .9rem; background: var(--panel); border-radius: .4rem; break-inside: avoid; }
.chart svg { display: block; width: 100%; height: auto; }
.chart text { font-size: 12px; fill: var(--soft); paint-order: stroke; stroke: var(--panel); stroke-width: 4; }
.chart .grid { stroke: var(--line); }
.chart .tick { stroke: var(--soft); }
.chart .rule { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 3; }
.curve { fill: none; stroke-width: 2; stroke: currentColor; stroke-linejoin: round; }
.curve.filled { fill: currentColor; fill-opacity: .28; stroke-width: 1.5; }
.marker { fill: var(--panel); stroke: currentColor; stroke-width: 2; }
.good { color: var(--good); }
.anomalous { color: var(--anomalous); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .3rem 0 0; padding: 0; font-size: .85rem; }
.legend li { list-style: none; }
.legend li::before { content: ""; display: inline-block; width: 1.2em; border-top: 3px solid; margin: 0 .4em .25em 0; }

@media (max-width: 46rem) {
  .case { grid-template-columns: 1fr; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print {
  html { font-size: 10px; }
  body { font-size: 1rem; max-width: none; padding: 0; }
  .charts { grid-template-columns: 1fr 1fr; }
  table { break-inside: avoid; }
  meter { display: none; }
  .panels { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  h2, h3, .note { break-after: avoid; }
  nav { display: none; }
}
"""
