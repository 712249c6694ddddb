"""A finished run as one self-contained web page with numbers, settings and figures.

The style of the figures is here too: colours of the Okabe-Ito set, font sizes as they are printed.
"""

import base64
import html

from swift_hydra.settings import printable

BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#999999"
WIDTH = 6.5  # inches, the width of the text on an A4 page
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
}
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111; }
body { max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.headline { font-size: 1.3rem; font-weight: 600; }
figure { margin: 0 0 1.5rem; break-inside: avoid; } img { width: 100%; height: auto; }
figcaption { color: #444; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top; }
th, td { border-bottom: 1px solid #ddd; }
th { font-weight: normal; color: #444; white-space: nowrap; } td { overflow-wrap: anywhere; }
.wide img { min-width: 34rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } tr { break-inside: avoid; }
  .wide { overflow: visible; } .wide img { min-width: 0; max-width: 6.5in; }
}
"""


def page(report, figures):
    """The page as text.

    Args:
        report: the dict of report.json of a run that did not fail.
        figures: (title, caption, PNG bytes) of each figure.

    Returns:
        HTML with everything inside: no script, no reference to another file.
    """
    name = f"{report['dataset']}, {report['protocol']}, seed {report['seed']}"
    rows = {
        part: f"{report[f'n_{part}']:,} rows, {report[f'n_{part}_anomalies']:,} of them {what}"
        for part, what in (("train", "known anomalies"), ("test", "anomalies"))
    }
    facts = {
        "training": rows["train"],
        "test": rows["test"],
        "features": report["n_features"],
        "effective rank": report["effective_rank"],
        "generated anomalies": report["n_synthetic"],
        "experts": report["n_experts"],
        "device": f"{report['device']}, Mamba backend {report['mamba_backend']}",
        "peak memory": f"{report['peak_memory_mib']} MiB"
        if report["peak_memory_mib"]
        else "not known",
    }
    seconds = {stage: f"{value:.1f}" for stage, value in report["seconds"].items()}
    versions = {
        "Swift Hydra": report["git"] or "not known",
        **report["versions"],
        "platform": report["platform"],
        "threads": report["threads"],
    }
    parts = [_figure(*figure) for figure in figures]
    for title, values in (
        ("Data and model", facts),
        ("Settings", report["config"]),
        ("Seconds per stage", seconds),
        ("Versions", versions),
    ):
        parts.append(f"<h2>{title}</h2>\n{_table(values)}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Swift Hydra: {escape(name)}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{escape(name)}</h1>
<p class="headline">AUC-ROC {report["auc_roc"]:.4f}, AUC-PR {report["auc_pr"]:.4f}</p>
{chr(10).join(parts)}
</body>
</html>
"""


def escape(text):
    """Untrusted text made safe for a page in UTF-8."""
    return html.escape(printable(text))


def _figure(title, caption, png):
    data = base64.b64encode(png).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return (
        f'<h2>{escape(title)}</h2>\n<figure><div class="wide">{image}</div>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(values):
    """A table of names and values; None is shown as "default"."""
    lines = []
    for name, value in values.items():
        text = "default" if value is None else str(value)
        lines.append(f"<tr><th>{escape(str(name))}</th><td>{escape(text)}</td></tr>")
    return f'<div class="wide"><table>\n{chr(10).join(lines)}\n</table></div>'
