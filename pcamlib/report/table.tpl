{# Styler's table in a box of its own: headings in groups, a row for each section, names of rows that stay in view.
   Every text comes as HTML from `render`; MathJax must not look for formulas in names. #}
<div class="pcam-table mathjax_ignore tex2jax_ignore">
<div role="region" tabindex="0" aria-label="{{ caption }}" style="overflow-x:auto;max-width:100%">
<table id="T_{{ uuid }}" class="dataframe">
<caption>{{ caption }}</caption>
<thead>
{% for r in head %}
<tr>
{% if loop.first %}
<td rowspan="{{ head|length }}"></td>
{% endif %}
{% for c in r if c.is_visible and "col_heading" in c.class %}
<th scope="{{ "colgroup" if "colspan" in c.attributes else "col" }}" {{ c.attributes }}>{{ c.display_value }}</th>
{% endfor %}
</tr>
{% endfor %}
</thead>
<tbody>
{% for r in body %}
{% set names = r|selectattr("type", "eq", "th")|list %}
{% set cells = r|selectattr("type", "eq", "td")|list %}
{% if names|length == 2 and names[0].is_visible %}
{% if not loop.first %}
</tbody><tbody>
{% endif %}
<tr class="pcam-section"><th scope="rowgroup" colspan="{{ cells|length + 1 }}"><span>{{ names[0].display_value }}</span></th></tr>
{% endif %}
<tr><th scope="row">{{ names[-1].display_value }}</th>
{% for c in cells %}
<td{% if c.display_value|length < 16 and c.display_value|select("in", "0123456789")|list %} class="pcam-number"{% endif %}>{{ c.display_value }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if notes %}
<details class="pcam-note"><summary><small>{{ line }}</small></summary><p class="pcam-caption"><small>{{ notes }}</small></p></details>
{% elif line %}
<p class="pcam-caption"><small>{{ line }}</small></p>
{% endif %}
</div>
