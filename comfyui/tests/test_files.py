"""The files that ComfyUI and its registry read."""

import ast
import json
import re

import pytest
from conftest import NODE


def mappings():
    """The nodes' names, read without importing what needs ComfyUI."""
    found = {}
    for step in ast.parse((NODE / "nodes.py").read_text(encoding="utf-8")).body:
        if isinstance(step, ast.Assign) and isinstance(step.targets[0], ast.Name) and isinstance(step.value, ast.Dict):
            found[step.targets[0].id] = [key.value for key in step.value.keys]
    return found


def test_every_node_has_a_title():
    found = mappings()
    assert found["NODE_CLASS_MAPPINGS"] == found["NODE_DISPLAY_NAME_MAPPINGS"]
    assert all(name.startswith("Tensorpress") for name in found["NODE_CLASS_MAPPINGS"])


def test_the_workflows_agree():
    folder = NODE / "example_workflows"
    api = json.loads((folder / "flux-api.json").read_text())
    drawn = json.loads((folder / "flux.json").read_text())
    nodes = {str(node["id"]): node for node in drawn["nodes"]}
    assert {key: node["class_type"] for key, node in api.items()} == {key: node["type"] for key, node in nodes.items()}
    links = {link[0]: link for link in drawn["links"]}
    for key, node in api.items():
        wired = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        shown = {i["name"]: [str(links[i["link"]][1]), links[i["link"]][2]] for i in nodes[key]["inputs"]}
        assert wired == shown
        values = [value for value in node["inputs"].values() if not isinstance(value, list)]
        assert [v for v in nodes[key]["widgets_values"] if v != "fixed"] == values
    ours = {node["class_type"] for node in api.values() if node["class_type"].startswith("Tensorpress")}
    assert ours and ours <= set(mappings()["NODE_CLASS_MAPPINGS"])


@pytest.mark.parametrize(
    "line",
    [
        r'name = "[a-z][a-z0-9-]*"',
        r'version = "\d+\.\d+\.\d+"',
        r"\[project\.urls\]\nRepository = \"https://",
        r"\[tool\.comfy\]",
        r'PublisherId = "[a-z][a-z0-9-]*"',
        r'DisplayName = "\S',
        r'requires-comfyui = ">=\d+\.\d+\.\d+"',
    ],
)
def test_what_the_registry_asks_for(line):
    text = (NODE / "pyproject.toml").read_text()
    assert re.search(f"^{line}", text, re.MULTILINE)
    assert 'license = { file = "LICENSE" }' in text and (NODE / "LICENSE").is_file()


def test_the_registry_gets_no_placeholder():
    text = (NODE / "pyproject.toml").read_text()
    assert '""' not in text and "TODO" not in text and "[]" not in text


def test_the_node_is_not_named_as_the_package_that_it_needs():
    """An installer takes a project that depends on its own name for satisfied, and installs
    nothing; `pip install` of the folder would go in the package's place."""
    text = (NODE / "pyproject.toml").read_text()
    needs = re.findall(r'"([^"]+)"', re.search(r"^dependencies = (.*)$", text, re.MULTILINE).group(1))
    asked = [line for line in (NODE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert asked == needs == ["tensorpress[torch]"]
    assert re.search(r'^name = "(.*)"$', text, re.MULTILINE).group(1) not in [re.split(r"\W", n)[0] for n in needs]
