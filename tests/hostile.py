"""Names that people do not give by accident, for every field that ends up in a page, a table, a figure or a card."""

from __future__ import annotations

SCRIPT = "window.broken = 1"

VISIBLE = [
    f"<script>{SCRIPT}</script>",
    f"</td></table></div><script>{SCRIPT}</script>",
    f"<img src=x onerror='{SCRIPT}'>",
    f'" onmouseover="{SCRIPT}" x="',
    f"<svg/onload={SCRIPT}>",
    f"--><!--[if]><iframe srcdoc='<script>{SCRIPT}</script>'>",
    f"[link](javascript:{SCRIPT.replace(' ', '')})",
    "![picture](http://example.org/pixel.png)",
    "<http://example.org> [text][ref] [^1]",
    f"&lt;script&gt;{SCRIPT}&lt;/script&gt; &amp; &#60;b&#62;",
    "{include}`/etc/passwd`",
    "{raw:html}`<b>x</b>` {eval}`1` {{ substitution }}",
    "```{include} /etc/passwd",
    ":::{include} /etc/passwd",
    "::: {raw} html",
    "~~~ {eval-rst}",
    "`code` ``two`` `",
    "$x^2$ and $$y$$ and \\(z\\) \\begin{equation}",
    "a | b || c |",
    "*one* **two** _three_ __four__ ~~five~~",
    "# heading #",
    "1. list",
    "- list",
    "> quotation",
    "(target)=",
    "% comment",
    "+++",
    "---",
    "\\` \\$ \\<b> \\",
    "Ärzte 正常 \N{MICRO SIGN}m don't 3 < 4",
]
"""They can be read, and must be shown exactly so."""

INVISIBLE = [
    "benign\n\n```{include} /etc/passwd\n```",
    f"benign\r\n\r\n<script>{SCRIPT}</script>\n",
    "benign\n:::{raw} html\n:file: /etc/passwd\n:::",
    "benign\n\n(target)=\n# heading",
    "benign\u202etnangilam",
    "\u2066benign\u2069",
    "\x1b[31mred",
    "be\u200bn\x00ign",
]
"""They hold what cannot be seen: refused in labels and cards, shown as escapes elsewhere."""
