"""A recipe's name tells apart what must not be shared, and nothing else."""

from __future__ import annotations

from actors.gates.trees import Entry
from actors.setup.recipe import Recipe, recipe

TREE = {
    "requirements.txt": "1",
    "src/shop.py": "2",
    "web/package-lock.json": "3",
    "scripts/install.sh": "4",
    "requirements/test.in": "5",
    "docs/index.md": "6",
}


def made(
    command: str = "./scripts/install.sh && pip install .",
    where: tuple[str, ...] = ("acme", "/srv/shop", "HEAD", "A"),
    **changed: str,
) -> Recipe:
    ids = {
        **TREE,
        **{name.replace("__", "/").replace("_dot_", "."): id for name, id in changed.items()},
    }
    tree = {path: Entry("100644", object_id, 10) for path, object_id in ids.items()}
    return recipe(command, where, tree)


def test_the_same_inputs_make_the_same_name() -> None:
    """Nothing would ever be found in the cache."""
    assert made() == made()
    assert made(src__shop_dot_py="9").key == made().key
    assert made(docs__index_dot_md="9").key == made().key


def test_every_lock_file_manifest_and_file_of_the_command_changes_the_name() -> None:
    """A job would run with the dependencies of another version."""
    for name in ("requirements_dot_txt", "web__package-lock_dot_json", "scripts__install_dot_sh",
                 "requirements__test_dot_in", "Cargo_dot_lock"):  # fmt: skip
        assert made(**{name: "9"}).key != made().key, name


def test_command_organization_repository_branch_and_sandbox_change_the_name() -> None:
    """Whoever controls one of them would decide what others run."""
    names = {made().key, made("true").key}
    for at in range(4):
        where = ["acme", "/srv/shop", "HEAD", "A"]
        where[at] = "other"
        names.add(made(where=tuple(where)).key)
    assert len(names) == 6
    assert made().only_for("1" * 40).key not in names | {made().only_for("2" * 40).key}


def test_python_projects_are_known_by_their_manifests() -> None:
    """A bare `pip install` would have no environment to install into."""
    assert made().python
    tree = {"package.json": Entry("100644", "1", 1), "readme.txt": Entry("100644", "1", 1)}
    assert not recipe("npm ci", (), tree).python
