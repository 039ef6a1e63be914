"""The page's style: one readable column, tables that scroll in their box, light, dark and paper."""

STYLESHEET = """
:root {
  --ink: #1c2430; --muted: #5d6673; --rule: #d5d9df; --paper: #ffffff; --tint: #f5f6f8;
  --accent: #0b5c93; --warning: #8a4b00; --warning-tint: #fff6e8;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ee; --muted: #a3abb7; --rule: #39414d; --paper: #14181e; --tint: #1d232b;
    --accent: #7cc0ee; --warning: #f0b866; --warning-tint: #2b2416;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3.5rem) 4rem; max-width: 1180px;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1, h2, h3 { line-height: 1.2; font-weight: 650; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.75rem, 1.2rem + 2.5vw, 2.6rem); margin: 0.2rem 0 0.8rem; }
h2 { font-size: 1.6rem; margin: 0 0 1rem; }
h3 { font-size: 1.15rem; margin: 2.6rem 0 0.9rem; }
p { max-width: 72ch; margin: 0 0 1rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.eyebrow { color: var(--muted); font-size: 0.85rem; letter-spacing: 0.06em; margin: 0; }
.lead { font-size: 1.1rem; color: var(--muted); }
.note, figcaption { color: var(--muted); font-size: 0.875rem; line-height: 1.5; }
.warning {
  border-left: 3px solid var(--warning); background: var(--warning-tint);
  padding: 0.6rem 0.9rem; max-width: none;
}
nav ul, ul.plain { list-style: none; padding: 0; margin: 0 0 1rem; }
nav li { display: inline-block; margin-right: 1.5rem; }
section { border-top: 1px solid var(--rule); margin-top: 2.5rem; padding-top: 2rem; }
.scroll { overflow-x: auto; margin: 0 0 1.5rem; }
.scroll:focus-visible, pre:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; }
caption { text-align: left; font-weight: 600; padding: 0 0 0.5rem; white-space: nowrap; }
th, td { padding: 0.42rem 0.75rem; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
thead th {
  color: var(--muted); font-weight: 500; text-align: right; vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink);
}
thead th[scope=colgroup] { text-align: center; border-bottom: 1px solid var(--rule); }
tbody th { font-weight: 500; text-align: left; }
thead th:first-child[rowspan], thead tr:only-child th:first-child { text-align: left; }
tbody th, thead th:first-child[rowspan], thead tr:only-child th:first-child {
  position: sticky; left: 0; background: var(--paper); padding-left: 0;
}
table.numbers { font-variant-numeric: tabular-nums; }
table.numbers td { text-align: right; white-space: nowrap; }
table.words td, table.words thead th { text-align: left; }
table.words td { max-width: 32rem; overflow-wrap: break-word; }
th > span { display: block; width: max-content; overflow-wrap: anywhere; }
thead th > span { max-width: 6rem; }
.numbers thead th[scope=col] > span { margin-left: auto; }
.numbers thead th[scope=colgroup] > span { margin: 0 auto; max-width: 14rem; }
.numbers thead th[rowspan]:first-child > span, thead tr:only-child th:first-child > span {
  margin-left: 0;
}
tbody th > span { max-width: 15rem; }
tr.published th, tr.published td { color: var(--muted); }
tr.differs th { font-weight: 650; }
td.published { color: var(--muted); }
details { margin: 0 0 1.5rem; }
summary { cursor: pointer; color: var(--accent); padding: 0.2rem 0; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
details[open] > summary { margin-bottom: 0.8rem; }
td strong { font-weight: 700; }
.interval { display: block; color: var(--muted); font-size: 0.85em; line-height: 1.25; }
.tag {
  border: 1px solid var(--rule); border-radius: 3px; padding: 0 0.35em; font-size: 0.75em;
  white-space: nowrap;
}
.chip {
  display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; margin-right: 0.5em;
}
/* Tables that fit beside each other stand beside each other. */
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; align-items: start; }
.tables .scroll { max-width: 100%; }
.whose { margin: 0 0 0.3rem; }
p .method, li .method { display: inline-block; margin-right: 1.2rem; }
pre {
  background: var(--tint); padding: 0.8rem 1rem; margin: 0 0 1.2rem; border-radius: 4px;
  font-size: 0.85rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
figure { margin: 0 0 1.5rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { margin-top: 0.5rem; max-width: 72ch; overflow-wrap: anywhere; }
.side-by-side {
  display: grid; gap: 0.5rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(0.9 * var(--picture))), 1fr));
}
.side-by-side figure { overflow-x: auto; }
/* Below this the numbers in the cells are too small to read, so the picture scrolls. */
.side-by-side img { min-width: calc(0.75 * var(--picture)); }
@media (max-width: 640px) {
  body { padding-top: 1.5rem; }
  th, td { padding: 0.4rem 0.6rem; }
  .numbers tbody th > span { max-width: 7.5rem; }
  .words tbody th > span { max-width: 9.5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  section + section { break-before: page; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, pre { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: 0.25rem 0.4rem; }
  table.numbers td { white-space: normal; }
  tbody th { position: static; }
  .side-by-side { grid-template-columns: repeat(3, 1fr); }
  .side-by-side img { min-width: 0; }
}
"""
