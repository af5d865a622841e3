"""The documentation site: ``make docs`` builds it into site/; every warning is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import Config, GoogleDocstring

from docs.generate.environments import environment_page, gallery
from docs.generate.lessons import formula
from docs.generate.pictures import pictures
from docs.generate.rewards import reward_sections
from rss_env import __version__
from rss_env.datasets import DATASETS

DOCS = Path(__file__).parent
NAPOLEON: Any = Config(napoleon_use_ivar=True, napoleon_attr_annotations=True)

project = "RSS: segmentation from rewards"
version = release = __version__
html_title = project
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["extra.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"light_css_variables": {"color-brand-primary": "#3f51b5", "color-brand-content": "#3949ab"}}
language = "en"
highlight_language = "none"
pygments_dark_style = "monokai"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["generated", "tutorials"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!rss_env\.|agents\.).*"),  # the pages of other projects are not fetched
    ("py:class", r"rss_env\.(.*Task|.*\.Judge|.*\.PhotoSource)"),  # internals in signatures
]

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_type_aliases = {"JsonObject": "JsonObject"}
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "course",
    "filename_pattern": "/lesson_",
    "within_subsection_order": "docs.generate.lessons.by_number",
    "image_srcset": ["2x"],
    "capture_repr": (),
    "reset_modules": ("matplotlib", "docs.generate.lessons.warnings_are_errors"),
    "reset_modules_order": "both",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    next(field for field in PyObject.doc_field_types if field.name == "variable").label = "Attributes"
    app.connect("builder-inited", generate)
    app.add_html_math_renderer("mathml", inline_renderers=(formula, None), block_renderers=(formula, None))
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("autodoc-process-signature", readable)


def generate(app: Sphinx) -> None:
    """Writes what comes from the code; files that would not change are left alone, and so are their pages."""
    files: dict[str, str | bytes] = {
        "generated/gallery.md": gallery(),
        "generated/rewards.md": reward_sections(),
    }
    for name in DATASETS:
        folder, shown = f"environments/{name.lower()}", pictures(name)
        files |= {f"{folder}/{file}": data for file, (_, data) in shown.items()}
        captions = {f"{name.lower()}/{file}": caption for file, (caption, _) in shown.items()}
        files[f"{folder}.md"] = environment_page(name, captions)
    for page in (DOCS / "course").glob("lesson_*.rst"):
        if not (DOCS / "tutorials" / f"{page.stem}.py").exists():  # a lesson that got another name
            page.unlink()
    for address, content in files.items():
        path, data = DOCS / address, content if isinstance(content, bytes) else content.encode()
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def as_restructured_text(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are in Google's style, with some of Markdown: headings, indented code, pipes that are pipes."""
    text = re.sub(r"^## (.+)$", r".. rubric:: \1\n", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"^(?![.-])(\S.*)(?<!::)\n\n(?= {4})", r"\1\n\n::\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=: )([A-Z]\.)$", r"\\\1", text, flags=re.MULTILINE)  # "C." would be the third of a list
    kind: Any = what if what in {"class", "module"} else "object"  # an attribute's "a: b" would have the type a
    docstring = GoogleDocstring(text, NAPOLEON, app, kind, name, thing, options)
    pipe = r"\|(?=(?:[^`]|``[^`]*``)*$)"  # outside of literals
    lines[:] = [re.sub(pipe, r"\|", line) if line[:1].strip() else line for line in docstring.lines()]


def readable(app: Sphinx, what: str, name: str, thing: Any, options: Any, *signature: str | None) -> Any:
    """Signature and result as the source has them: Sphinx has its own way of ``Callable[..., int]`` and factories."""
    return [part and part.replace("[[...], ", "[..., ").replace("<factory>", "...") for part in signature]
