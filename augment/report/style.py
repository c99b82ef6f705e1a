"""The look of a page: light and dark, from a phone to a wide screen."""

STYLE = """\
:root {
  color-scheme: light dark;
  --ground: #ffffff; --text: #1a1e24; --dim: #5a6270; --line: #dde1e6; --soft: #f4f6f8; --accent: #1f5fa8;
  --warn: #7a4d00; --warn-ground: #fff5dd; --warn-line: #e5b64f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15181d; --text: #e6e9ee; --dim: #9aa3b0; --line: #323841; --soft: #1e232a; --accent: #7fb4f5;
    --warn: #f3cf86; --warn-ground: #33290f; --warn-line: #8a6a22;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word;
}
.page { display: grid; grid-template-columns: minmax(0, 1fr); max-width: 78rem; margin: 0 auto; padding: 0 1rem 5rem; }
header { padding: 2.2rem 0 .6rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
section { padding: 1.8rem 0 .4rem; border-top: 1px solid var(--line); margin-top: 1.6rem; scroll-margin-top: .5rem; }
p { max-width: 44rem; margin: .6rem 0; }
.lead, figcaption, .caption, .facts dt, .origin { color: var(--dim); }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
nav { font-size: .9rem; background: var(--soft); border-radius: 8px; padding: .8rem 1rem; margin: .6rem 0; }
nav ol { list-style: none; margin: 0; padding: 0; columns: 2; column-gap: 1.2rem; }
nav li { padding: .12rem 0; break-inside: avoid; }
.count {
  background: var(--warn-ground); color: var(--warn); border-radius: 1rem; padding: 0 .45rem; font-size: .78rem;
  font-variant-numeric: tabular-nums;
}
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.facts > div { background: var(--soft); border-radius: 8px; padding: .7rem .9rem; }
.facts dt { font-size: .82rem; line-height: 1.35; }
.facts dd { margin: .1rem 0 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.key {
  max-width: 46rem; background: var(--soft); border-left: 4px solid var(--accent); border-radius: 0 8px 8px 0;
  padding: .8rem 1rem; font-size: 1.08rem;
}
.notices { list-style: none; margin: 1rem 0; padding: 0; max-width: 46rem; }
.notices li, p.notice {
  background: var(--warn-ground); color: var(--warn); border-left: 4px solid var(--warn-line);
  border-radius: 0 8px 8px 0; padding: .45rem .9rem; margin: .4rem 0; font-size: .93rem; max-width: 46rem;
  overflow-wrap: anywhere;
}
.notices a { color: inherit; font-weight: 600; }
figure { margin: 1rem 0; }
figcaption, .caption { font-size: .85rem; padding: .25rem 0; overflow-wrap: anywhere; }
.caption { max-width: none; margin: 1.3rem 0 -.5rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; }
th, td { text-align: left; padding: .36rem 1rem .36rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; }
td:first-child { min-width: 4.8rem; }
th:last-child, td:last-child { padding-right: .2rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 11rem; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); font-size: .93rem; }
pre {
  background: var(--soft); border-radius: 8px; padding: .8rem 1rem; font-size: .82rem; line-height: 1.45;
  overflow-x: auto; max-height: 30rem;
}
@media (min-width: 1100px) {
  .page { grid-template-columns: 13.5rem minmax(0, 1fr); column-gap: 3rem; }
  header { grid-column: 2; }
  nav { grid-row: 1 / span 2; position: sticky; top: 1.2rem; align-self: start; margin-top: 2.2rem; }
  nav ol { columns: 1; }
  .facts { grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); }
}
@media (max-width: 600px) { figure.strip { overflow-x: auto; } figure.strip img { max-width: none; width: 40rem; } }
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
