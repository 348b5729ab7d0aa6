"""What the studio's pages ask for: pictures, masks, previews, reviews; and who may ask."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.outputs import records, save
from support.served import decoded, png
from support.studio import studio

import defectrt.apps.studio
from defectrt.apps.studio.begin import MakeAsk
from defectrt.apps.studio.home import Home
from defectrt.apps.studio.outcome import learning, shown_file
from defectrt.apps.studio.tasks import Task
from defectrt.config.command_line import given
from defectrt.config.job import AREAS, JobConfig
from defectrt.errors import InputError
from defectrt.images.preview import around
from defectrt.images.preview import shown as eight_bits
from defectrt.images.reading import read_image

WEB = Path(defectrt.apps.studio.__file__).parent / "web"


@pytest.fixture
def client(fake_engine, tmp_path):
    with studio(tmp_path / "studio", fake_engine[0]) as (client, _):
        yield client


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "studio", 10_000)


def drawn(box):
    """A part of a mask as the page draws it."""
    height, width = box[2:]
    image = Image.fromarray(np.full((height, width, 4), 255, np.uint8))
    image.save(data := io.BytesIO(), "PNG")
    return {"x": box[0], "y": box[1], "png": base64.b64encode(data.getvalue()).decode()}


@pytest.mark.parametrize(
    "path", ["state", "listing?path=/", "picture?folder=/&name=a.png", "tasks"]
)
def test_nothing_is_told_without_the_token(client, path):
    assert client.get(f"/v1/studio/{path}", headers={"Authorization": ""}).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert client.get(f"/v1/studio/{path}", headers=wrong).status_code == 401


def test_pages_of_elsewhere_and_names_of_others_are_refused(client):
    ask = {"folder": "/", "name": "a.png"}
    for header in ({"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = client.put("/v1/studio/mask", json=ask, headers=header)
        assert answer.status_code == 403
    assert client.get("/studio/", headers={"Host": "evil.example"}).status_code == 421
    text = {"Content-Type": "text/plain"}  # what a form of another page may send
    assert client.put("/v1/studio/mask", content=json.dumps(ask), headers=text).status_code == 415


def test_the_token_stays_the_same_and_is_the_users_alone(fake_engine, tmp_path):
    links = []
    for _ in range(2):
        with studio(tmp_path / "studio", fake_engine[0]) as (_, link):
            links.append(link.partition("#")[2])
    assert links[0] == links[1]
    assert len(links[0]) > 40
    assert (tmp_path / "studio" / "token").stat().st_mode & 0o077 == 0


def test_pages_hold_nothing_from_outside_and_may_load_nothing_else(client):
    answer = client.get("/studio/", headers={"Authorization": ""})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    for path in WEB.iterdir():
        assert client.get(f"/studio/{path.name}").status_code == 200
        links = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()))
        assert links <= {"http://www.w3.org"}, path.name
    assert client.get("/studio/../tasks.py").status_code == 404
    assert client.get("/studio/..%2ftasks.py").status_code == 404


def test_a_dropped_picture_is_kept_shown_and_taken_away(client, tmp_path):
    query = {"place": "pictures/goods", "name": "C:\\a\\one.png"}
    kept = client.post("/v1/studio/pictures", params=query, content=png()).json()
    assert kept["name"] == "one.png"
    again = client.post("/v1/studio/pictures", params=query, content=png(seed=1)).json()
    assert again["name"] == "one-2.png"
    found = client.get("/v1/studio/pictures", params={"folder": kept["folder"]}).json()
    assert (found["names"], found["total"]) == (["one-2.png", "one.png"], 2)
    shown = client.get("/v1/studio/picture", params=kept)
    np.testing.assert_array_equal(decoded(shown.content).squeeze(), decoded(png()))
    small = client.get("/v1/studio/picture", params={**kept, "side": 20})
    assert max(decoded(small.content).shape) == 20
    assert client.delete("/v1/studio/pictures", params=kept).status_code == 200
    assert not (tmp_path / "studio" / "pictures" / "goods" / "one.png").exists()


@pytest.mark.parametrize(
    ("place", "name", "data", "why"),
    [
        ("pictures/goods", "a.txt", b"", "drop PNG"),
        ("pictures/goods", "a.png", b"none", "a.png"),
        ("../goods", "a.png", b"", "a name has"),
        ("pictures/..", "a.png", b"", "a name has"),
        ("pictures//x", "a.png", b"", "a name has"),
        ("pictures/goods", ".hidden.png", b"", "a name has"),
    ],
)
def test_what_is_no_picture_is_not_taken_in(client, tmp_path, place, name, data, why):
    query = {"place": place, "name": name}
    answer = client.post("/v1/studio/pictures", params=query, content=data)
    assert answer.status_code == 422
    assert why in answer.json()["error"]["message"]
    assert not list((tmp_path / "studio").rglob("*.png"))
    assert not list(tmp_path.glob("goods"))


def test_too_many_pixels_are_refused_before_they_are_decoded(home):
    with pytest.raises(InputError, match="200x100; up to 10000 px here"):
        home.add(home.below("pictures"), "a.png", png((100, 200)))
    assert not list(home.folder.rglob("*.png"))


def test_only_what_was_dropped_can_be_taken_away(client, tmp_path):
    save(tmp_path / "mine" / "a.png", np.zeros((9, 9), np.uint8))
    query = {"folder": str(tmp_path / "mine"), "name": "a.png"}
    assert client.delete("/v1/studio/pictures", params=query).status_code == 422
    assert (tmp_path / "mine" / "a.png").exists()
    outside = {"folder": str(tmp_path / "studio" / "pictures"), "name": "../../mine/a.png"}
    assert client.delete("/v1/studio/pictures", params=outside).status_code == 422


def test_what_was_drawn_comes_back_and_is_a_mask_of_the_command_lines(client, parts):
    images, _ = parts
    (name, *_) = sorted(path.name for path in images.iterdir())
    ask = {"folder": str(images), "name": name}
    assert client.get("/v1/studio/mask", params=ask).json() == {}
    part = drawn((12, 20, 5, 4))
    assert client.put("/v1/studio/mask", json=ask | part).status_code == 200
    back = client.get("/v1/studio/mask", params=ask).json()
    assert (back["x"], back["y"]) == (12, 20)
    found = client.get("/v1/studio/pictures", params={"folder": str(images)}).json()
    assert found["drawn"] == [name]
    mask = read_image(Path(found["masks"]) / f"{Path(name).stem}_mask.png")
    assert mask.shape[:2] == read_image(images / name).shape[:2]
    assert set(np.unique(mask)) == {0, 255}
    assert client.put("/v1/studio/mask", json=ask).status_code == 200
    assert client.get("/v1/studio/mask", params=ask).json() == {}


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (59, 0, 2, 2), (0, 49, 2, 2)])
def test_a_mask_outside_of_its_picture_is_refused(client, tmp_path, box):
    save(tmp_path / "goods" / "a.png", decoded(png()))
    ask = {"folder": str(tmp_path / "goods"), "name": "a.png"}
    answer = client.put("/v1/studio/mask", json=ask | drawn(box))
    assert answer.status_code == 422
    assert "outside" in answer.json()["error"]["message"]


def test_a_preview_is_what_a_job_makes(client, parts, go):
    images, _ = parts
    out, summary = go(seed=3, masks=None, strength="0.4,0.6")
    assert summary.kept == 3
    for line in records(out):
        options = {"seed": 3, "strength": "0.4,0.6"}
        ask = {"folder": str(images), "name": line["source"], "options": options}
        shown = client.post("/v1/studio/preview", json=ask).json()
        assert shown["figures"]["visibility"] == pytest.approx(line["visibility"])
        x, y, width, height = shown["box"]
        box = np.s_[y : y + height, x : x + width]
        good, image = (read_image(out / line[key])[box] for key in ("good", "image"))
        seen = decoded(base64.b64decode(shown["pictures"]["result"].partition(",")[2]))
        np.testing.assert_array_equal(seen.squeeze(), eight_bits(image, good).squeeze())


def test_a_preview_is_of_the_type_that_a_job_takes(opened_as, fake_engine, parts, go, tmp_path):
    from support.fake_engine import FakeEngine

    opened_as(FakeEngine(defect_types=("crack", "hole", "spot")))
    images, _ = parts
    out, _ = go(masks=None, count=2)
    first = {line["source"]: line["defect"] for line in records(out) if line["sample"] == 0}
    assert len(set(first.values())) > 1
    with studio(tmp_path / "studio", fake_engine[0]) as (client, _):
        for name, defect in first.items():
            ask = {"folder": str(images), "name": name, "options": {"count": 2}}
            assert client.post("/v1/studio/preview", json=ask).json()["defect"] == defect


def test_a_drawn_mask_is_where_a_preview_paints(client, parts):
    images, _ = parts
    name = sorted(path.name for path in images.iterdir())[0]
    ask = {"folder": str(images), "name": name}
    client.put("/v1/studio/mask", json=ask | drawn((10, 12, 9, 8)))
    shown = client.post("/v1/studio/preview", json=ask | {"drawn": True}).json()
    assert shown["figures"]["mask_area"] == 72
    client.put("/v1/studio/mask", json=ask | drawn((10, 12, 9, 9)))
    shown = client.post("/v1/studio/preview", json=ask | {"drawn": True}).json()
    assert shown["figures"]["mask_area"] == 81


def test_real_defects_are_moved_without_an_engine(client, parts, go, tmp_path):
    images, _ = parts
    mine = tmp_path / "studio" / "examples" / "mine"
    example = decoded(png()).copy()
    example[14:22, 20:29] = 40
    save(mine / "pit" / "a.png", example)
    assert client.get("/v1/studio/state").json()["likes"] == {}
    ask = {"folder": str(mine), "name": "pit/a.png"}
    client.put("/v1/studio/mask", json=ask | drawn((20, 14, 9, 8)))
    assert client.get("/v1/studio/state").json()["likes"] == {"mine": ["pit"]}
    out, _ = go(masks=None, like=mine, seed=2)
    assert records(out)
    for line in records(out):
        ask = {"folder": str(images), "name": line["source"], "like": "mine"}
        shown = client.post("/v1/studio/preview", json=ask | {"options": {"seed": 2}}).json()
        assert shown["defect"] == "pit"
        assert shown["figures"]["visibility"] == pytest.approx(line["visibility"])


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        ({"options": {"masks": "/etc"}}, 400),
        ({"options": {"candidates": 99}}, 400),
        ({"options": {"defect": "none"}}, 400),
        ({"more": 1}, 400),
        ({"engine": "none"}, 400),
        ({"like": "none"}, 422),
        ({"like": "../.."}, 422),
        ({"name": "../a.png"}, 422),
        ({"name": "gone.png"}, 422),
    ],
)
def test_a_preview_of_what_is_not_possible_is_told(client, parts, ask, status):
    images, _ = parts
    name = sorted(path.name for path in images.iterdir())[0]
    answer = client.post("/v1/studio/preview", json={"folder": str(images), "name": name} | ask)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_arguments_say_what_the_job_is(client, fake_engine, parts, tmp_path):
    images, _ = parts
    options = {
        "defect": "spot",
        "strength": "0.2,0.4",
        "seed": 5,
        "count": 2,
        "format": "mvtec,coco",
    }
    ask = MakeAsk(folder=images, drawn=False, options=options)
    line = type("Line", (), {"config": JobConfig(images=images, engine=fake_engine[0])})()
    line.check = lambda config: None
    _, title, words, out = ask.command(Home(tmp_path / "studio", 1000), line)
    assert title == images.name
    assert out == images.with_name(f"{images.name}-defects")
    assert words[0] == "synthesize"
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    values = {key.removeprefix("--").replace("-", "_"): value for key, value in pairs.items()}
    job = JobConfig(**given(values, *AREAS))
    assert job == JobConfig(images=images, out=out, engine=fake_engine[0], **options)


def test_decisions_are_carried_out_and_come_back(client, go):
    out, _ = go(count=2)
    images = [line["image"] for line in records(out)]
    ask = {"out": str(out), "by": "Ada"}
    decisions = [
        {"image": images[0], "keep": False, "reason": "blurred"},
        {"image": images[1], "keep": True, "label": drawn((20, 10, 6, 3))},
    ]
    done = client.post("/v1/studio/review", json=ask | {"decisions": decisions}).json()
    assert done == {"refused": 1, "restored": 0, "relabelled": 1}
    shown = client.get("/v1/studio/dataset", params={"out": str(out)}).json()["samples"]
    assert [sample["image"] for sample in shown] == images
    assert shown[0]["refused"] == "refused by Ada: blurred"
    assert shown[1]["label_by"] == "Ada"
    assert shown[1]["refined_area"] == 18
    for image in images[:2]:
        cut = client.get("/v1/studio/sample", params={"out": str(out), "image": image})
        assert set(cut.json()["images"]) >= {"good", "image", "label", "difference"}
    label = client.get("/v1/studio/label", params={"out": str(out), "image": images[1]}).json()
    assert (label["x"], label["y"]) == (20, 10)
    back = [{"image": images[0], "keep": True}, {"image": images[1], "keep": True, "as_made": True}]
    done = client.post("/v1/studio/review", json=ask | {"decisions": back}).json()
    assert done == {"refused": 0, "restored": 1, "relabelled": 1}
    shown = client.get("/v1/studio/dataset", params={"out": str(out)}).json()["samples"]
    assert not any(sample["refused"] or sample["label_by"] for sample in shown)


def test_what_is_no_dataset_is_told(client, tmp_path):
    for path in ("dataset", "sample", "label"):
        query = {"out": str(tmp_path), "image": "a.png"}
        answer = client.get(f"/v1/studio/{path}", params=query)
        assert answer.status_code == 422
        assert "not the output of a job" in answer.json()["error"]["message"]


def task(kind, out):
    return Task("0" * 16, kind, "part", "", str(out), "running", "", 0, 0, "", 0.0, 0.0, "")


def test_curves_and_pictures_of_a_training_are_found_while_it_runs(tmp_path):
    run = tmp_path / "part-run"
    learn = task("learn", tmp_path / "part")
    assert learning(learn) == {"curves": {}, "held_out": [], "preview": "", "sheet": False}
    with pytest.raises(InputError, match="no preview yet"):
        shown_file(learn, "preview")
    for step in (100, 200):
        save(run / "previews" / f"{step:06}.png", np.full((4, 4), step, np.uint8))
    (run / "log.jsonl").write_text(
        '{"step": 10, "matching": 0.5, "crops_per_s": 2}\n{"step": 20, "matching": 0.25}\n{"st'
    )
    now = learning(learn)
    assert now["curves"] == {"matching": [[10, 0.5], [20, 0.25]]}
    assert now["preview"] == "000200.png"
    assert shown_file(learn, "preview")[0] == (run / "previews" / "000200.png").read_bytes()
    with pytest.raises(InputError, match="no report yet"):
        shown_file(learn, "report")


def test_the_square_around_a_mask_is_as_near_as_the_image_allows():
    mask = np.zeros((100, 200), bool)
    mask[90:95, 4:10] = True
    y, x = around(mask, 32, 8)
    assert (y.start, y.stop, x.start, x.stop) == (68, 100, 0, 32)
    assert around(np.zeros((9, 7), bool), 4, 1) == (slice(0, 9), slice(0, 7))
