"""Invented people for the demo. Always the same ones: the same seed gives the same names, towns and numbers. No address exists."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

SURNAMES = (
    ("佐藤", "sato"), ("鈴木", "suzuki"), ("高橋", "takahashi"), ("田中", "tanaka"), ("伊藤", "ito"), ("渡辺", "watanabe"),
    ("山本", "yamamoto"), ("中村", "nakamura"), ("小林", "kobayashi"), ("加藤", "kato"), ("吉田", "yoshida"), ("山田", "yamada"),
    ("佐々木", "sasaki"), ("山口", "yamaguchi"), ("松本", "matsumoto"), ("井上", "inoue"), ("木村", "kimura"), ("林", "hayashi"),
    ("斎藤", "saito"), ("清水", "shimizu"), ("山崎", "yamazaki"), ("森", "mori"), ("池田", "ikeda"), ("橋本", "hashimoto"),
    ("阿部", "abe"), ("石川", "ishikawa"), ("中島", "nakajima"), ("前田", "maeda"), ("藤田", "fujita"), ("小川", "ogawa"),
    ("後藤", "goto"), ("岡田", "okada"), ("長谷川", "hasegawa"), ("村上", "murakami"), ("近藤", "kondo"), ("石井", "ishii"),
)  # fmt: skip
GIVEN = (
    ("結衣", "yui"), ("陽菜", "hina"), ("美咲", "misaki"), ("さくら", "sakura"), ("葵", "aoi"), ("真由美", "mayumi"), ("恵子", "keiko"),
    ("直美", "naomi"), ("智子", "tomoko"), ("由美", "yumi"), ("香織", "kaori"), ("彩", "aya"), ("麻衣", "mai"), ("千尋", "chihiro"),
    ("蓮", "ren"), ("大翔", "hiroto"), ("翔太", "shota"), ("健太", "kenta"), ("拓也", "takuya"), ("大輔", "daisuke"), ("直樹", "naoki"),
    ("誠", "makoto"), ("浩", "hiroshi"), ("隆", "takashi"), ("修", "osamu"), ("健一", "kenichi"), ("和也", "kazuya"), ("雄太", "yuta"),
)  # fmt: skip
ENGLISH = (
    ("Emma", "Clarke"), ("Daniel", "Novak"), ("Priya", "Raman"), ("Lucas", "Meyer"), ("Hannah", "O'Neill"), ("Miguel", "Santos"),
    ("Chloe", "Dubois"), ("Oliver", "Brandt"), ("Grace", "Okafor"), ("Ethan", "Park"), ("Sofia", "Rossi"), ("Noah", "Lindqvist"),
    ("Isla", "Fraser"), ("Arjun", "Mehta"), ("Lena", "Fischer"), ("Thomas", "Becker"),
)  # fmt: skip
COMPANIES = ("北川製作所", "みどり食品", "東雲印刷", "サンライズ物流", "青葉建設", "たちばな薬局", "港北電機", "あさひ観光")
ENGLISH_EVERY = 6  # one in six reads English


@dataclass(frozen=True, slots=True)
class Invented:
    """One invented person. `number` counts from 0 within a partner's book."""

    number: int
    last_name: str
    first_name: str
    email: str
    phone: str
    language: str
    city: str
    company: str
    birthday: date


def invent(seed: str, cities: tuple[str, ...], count: int) -> Iterator[Invented]:
    """Yield `count` people, the same ones for the same seed; nine in ten have a mobile phone."""
    dice = random.Random(seed)
    names = [(surname, given) for surname in SURNAMES for given in GIVEN]
    japanese, english = iter(dice.sample(names, count)), iter(dice.sample(ENGLISH, len(ENGLISH)))
    for number in range(count):
        foreign = next(english, None) if number % ENGLISH_EVERY == ENGLISH_EVERY - 1 else None
        (last, last_roman), (first, first_roman) = next(japanese)
        if foreign:
            first, last = foreign
            first_roman, last_roman = first.lower(), last.lower().replace("'", "")
        yield Invented(
            number=number,
            last_name=last,
            first_name=first,
            email=f"{first_roman}.{last_roman}@{seed}.example",
            phone=f"+8190{dice.randint(1000_0000, 9999_9999)}" if dice.random() < 0.9 else "",
            language="en" if foreign else "ja",
            city=dice.choice(cities),
            company=dice.choice(COMPANIES),
            birthday=date(dice.randint(1952, 2001), dice.randint(1, 12), dice.randint(1, 28)),
        )
