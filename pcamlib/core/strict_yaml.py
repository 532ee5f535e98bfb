"""YAML as people read it: no key twice, no numbers in notations that only YAML 1.1 has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pcamlib.core.errors import StudyError, system_advice

DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which keeps the last of two equal keys and reads 010 as 8 and 1:30 as 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise StudyError(
                    f"the key '{key_node.value[:60]}' stands in line {lines[key]} and again in line {line}: remove one"
                    " of them."
                )
            lines[key] = line
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text, line = self.construct_scalar(node), node.start_mark.line + 1
        whole = node.tag == "tag:yaml.org,2002:int"
        if ":" in text or whole and not DECIMAL.fullmatch(text):
            value = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
            raise StudyError(
                f"the number {text[:60]} in line {line} is not decimal (YAML 1.1 reads it as {value}): write a decimal"
                " number."
            )
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def load(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file.

    Raises StudyError, which names the file and the line, for what is not YAML or not a mapping, a key that stands twice
    in one mapping, and a number in base 2, 8, 16 or 60 (0b1, 010, 0x1F, 1:30). Truth values (yes, no, on, off) are left
    to the settings, which know where a number is due.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    # beside YAML's own: what its constructors pass on (dates, numbers, keys) and what deep nesting ends in
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        if advice := system_advice(error):
            raise StudyError(f"{path} cannot be read ({advice}).") from None
        raise StudyError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}.") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path} must be a mapping of settings; it holds {type(content).__name__}.")
    return content
