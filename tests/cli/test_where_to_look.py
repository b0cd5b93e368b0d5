"""At its end a run says where its overview, its report and TensorBoard are."""

from stagewise.cli.training import where_to_look


def test_what_is_there_is_named_and_what_is_not_is_told_how_to_make(tmp_path):
    folder = tmp_path / "a run" / "version_0"
    assert where_to_look(folder) == []
    (folder / "influence.zarr").mkdir(parents=True)
    assert where_to_look(folder) == [f"Report:       stagewise report '{folder}'"]
    (folder / "overview.png").write_bytes(b"")
    (folder / "events.out.tfevents.1").write_bytes(b"")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("")
    assert where_to_look(folder) == [
        f"Overview:     {folder / 'overview.png'}",
        f"Report:       {folder / 'report' / 'report.html'}",
        f"TensorBoard:  tensorboard --logdir '{folder.parent}' --host 127.0.0.1",
    ]
