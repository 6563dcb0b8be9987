"""Write the labelled sentences of the suite mini-finetune: `python -m tools.reviews`.

Sentences about films, put together from phrases that were written for this project: label 1 praises, label 0 pans.
They are a drill for `lerpbench finetune`, not a picture of how people review; of each label 300 train and 60 validate.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "bench" / "mini" / "reviews"
SIZES = {"train": 300, "validation": 60}  # sentences of each label

PARTS = (
    "the lead actor", "the young director", "the script", "the camera work", "the music", "the second act",
    "the ending", "the villain", "the whole cast", "the dialogue", "the final scene", "the opening hour",
    "the love story", "the humor", "the editing", "the story",
)  # fmt: skip
KINDS = (
    "comedy", "thriller", "drama", "romance", "western", "mystery", "sequel", "war film", "family film", "remake",
    "documentary", "ghost story",
)  # fmt: skip
ADJECTIVES = {
    1: ("funny", "tender", "gripping", "charming", "wise", "gorgeous", "moving", "clever", "warm", "thrilling",
        "heartfelt", "brilliant"),
    0: ("dull", "clumsy", "lifeless", "predictable", "tedious", "stale", "sloppy", "shallow", "boring", "awkward",
        "pointless", "annoying"),
}  # fmt: skip
PREDICATES = {  # of one part
    1: ("is a delight from the first minute to the last", "won me over without any effort", "is full of real warmth",
        "shows great skill and even greater heart", "could hardly be better", "is a joy to follow",
        "gives the film its beautiful soul", "kept me on the edge of my seat", "feels fresh and honest",
        "earns every laugh and every tear", "is simply wonderful", "made me want to stand up and cheer",
        "is as smart as it is lovely", "lifts the film far above the rest", "has a grace that is rare today",
        "is pure pleasure"),
    0: ("is a chore from the first minute to the last", "lost me without any effort", "is full of empty noise",
        "shows no skill and even less heart", "could hardly be worse", "is a pain to follow",
        "drains the film of any life", "put me right to sleep", "feels tired and fake",
        "begs for every laugh and gets none", "is simply terrible", "made me want to walk out",
        "is as dumb as it is ugly", "drags the film down with it", "has nothing new to say",
        "is a complete waste of time"),
}  # fmt: skip
CLAIMS = {  # of the whole film
    1: ("is one of the best things I have seen this year", "deserves all the praise that it gets",
        "left me smiling for days", "is well worth the price of a ticket", "gets everything right",
        "is a small treasure that I will watch again", "has great performances and a story to match",
        "will stay with me for a long time", "is a triumph for everyone involved", "never strikes a wrong note"),
    0: ("is one of the worst things I have seen this year", "deserves all the scorn that it gets",
        "left me angry for days", "is not worth the price of a ticket", "gets everything wrong",
        "is a big mess that I will never watch again", "has bad performances and a story to match",
        "was forgotten before I reached the door", "is an embarrassment for everyone involved",
        "never finds a right note"),
}  # fmt: skip
VERDICTS = {
    1: ("I loved it", "I was enchanted", "I laughed and cried", "I had a great time", "I was hooked",
        "I can only recommend it", "I wanted more", "I left the theater happy"),
    0: ("I hated it", "I was annoyed", "I yawned and sighed", "I had an awful time", "I was bored",
        "I can only warn you", "I wanted my money back", "I left the theater early"),
}  # fmt: skip


def sentences(label: int, draw: random.Random) -> Iterator[str]:
    """Endless sentences of one label; they may repeat."""
    while True:
        part, other = draw.sample(PARTS, 2)
        predicate, second = draw.sample(PREDICATES[label], 2)
        adjective, further = draw.sample(ADJECTIVES[label], 2)
        kind, claim, verdict = draw.choice(KINDS), draw.choice(CLAIMS[label]), draw.choice(VERDICTS[label])
        sentence = draw.choice(
            (
                f"{part} {predicate}.",
                f"{part} {predicate}, and {other} {second}.",
                f"{verdict}, because {part} {predicate}.",
                f"{verdict}: {part} is {adjective}, and {other} {predicate}.",
                f"this {adjective} and {further} {kind} {claim}.",
                f"{adjective}, {further} and well known, this {kind} {claim}.",
                f"what a {adjective} {kind}; {part} {predicate}.",
                f"as a {kind} it is {adjective}, and {verdict}.",
            )
        )
        yield sentence[0].upper() + sentence[1:]


def splits(seed: int = 0) -> dict[str, list[dict[str, object]]]:
    """Split -> rows of `text` and `label`; no sentence is in it twice."""
    draw = random.Random(seed)
    found: dict[str, list[dict[str, object]]] = {split: [] for split in SIZES}
    for label in (0, 1):
        endless, taken = sentences(label, draw), set[str]()
        for split, size in SIZES.items():
            while sum(row["label"] == label for row in found[split]) < size:
                text = next(endless)
                if text not in taken:
                    taken.add(text)
                    found[split].append({"text": text, "label": label})
    for rows in found.values():
        draw.shuffle(rows)
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for split, rows in splits().items():
        (FOLDER / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
