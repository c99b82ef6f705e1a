"""The examples of docs/models.md run as they stand, and every script that the pages name is there."""

import re


def test_the_examples_of_the_models_page(repository, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/models.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/models.md", "exec"), names)
    assert names["clips"].shape == (2, 4, 64, 64)


def test_every_script_that_the_pages_name_is_there(repository):
    named, missing = 0, []
    for page in [*repository.glob("*.md"), *repository.glob("docs/*.md")]:
        for script in re.findall(r"\b(?:bash|sh|python) ([\w/.-]+\.(?:sh|py))\b", page.read_text()):
            named += 1
            if not (repository / script).is_file():
                missing.append(f"{page.name}: {script}")
    assert named > 80 and not missing


def anchors(page):
    """The headings' names as links spell them: lower case, without punctuation, hyphens for spaces."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_between_pages_leads_somewhere(repository):
    followed, broken = 0, []
    pages = [*repository.glob("*.md"), *repository.glob("docs/*.md"), *repository.glob("augment/**/*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            followed += 1
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}")
    assert followed > 100 and not broken
