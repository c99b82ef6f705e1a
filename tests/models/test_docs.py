"""The examples of docs/models.md run as they stand."""

import re


def test_the_examples_of_the_models_page(repository, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/models.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/models.md", "exec"), names)
    assert names["clips"].shape == (2, 4, 64, 64)
