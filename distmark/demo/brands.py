"""The demo's six brands, each with two partners, its people and one campaign. Facts only; everything here is invented."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PASSWORD = "demo"  # noqa: S105 - printed at every start, for people who do not exist


# What people may do elsewhere after a click, by brand: what a click leads to, and what may follow in the days after.
BOOKINGS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "mirai-securities": (("appointment_booked",), ("account_opened",)),
    "hinode-insurance": (("account_created", "review_booked"), ()),
    "genki-fitness": (("visit_booked",), ("joined",)),
    "aoba-motors": (("visit_booked",), ("order_placed",)),
    "northwind-cloud": (("demo_booked",), ()),
    "komorebi-dining": (("table_reserved",), ("coupon_used",)),
}


@dataclass(frozen=True, slots=True)
class SamplePartner:
    """A partner, and the town their contacts live in."""

    key: str
    name: str
    roman: str
    title: str
    office: str
    city: str
    phone: str
    code: str
    towns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class English:
    """The English names of a brand."""

    name: str
    legal_name: str
    address: str
    contact: str


@dataclass(frozen=True, slots=True)
class SampleBrand:
    """A brand and the journey it offers. `attributes` are what contacts have, in turn; `+3` is three days from now, "" nothing."""

    key: str
    name: str
    legal_name: str
    address: str
    contact: str
    english: English
    website: str
    colour: str
    soft: str
    journey: str
    campaign: str
    campaign_name: str
    marketer: tuple[str, str]  # name, first part of the mail address
    approver: tuple[str, str]
    operator: tuple[str, str]
    partners: tuple[SamplePartner, SamplePartner]
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs_company: bool = False

    @property
    def domain(self) -> str:
        return f"{self.key}.example"


BRANDS: tuple[SampleBrand, ...] = (
    SampleBrand(
        key="mirai-securities",
        name="みらい証券",
        legal_name="みらい証券株式会社（金融商品取引業者 架空第0000号）",
        address="〒100-0000 東京都千代田区架空町1-2-3 みらいタワー",
        contact="0120-000-001（平日 9:00〜17:00）",
        english=English(
            "Mirai Securities",
            "Mirai Securities Co., Ltd. (fictitious)",
            "Mirai Tower, 1-2-3 Kakucho, Chiyoda-ku, Tokyo 100-0000, Japan",
            "+81 120-000-001 (weekdays 9:00-17:00)",
        ),
        website="https://mirai-securities.example",
        colour="#0b6e69",
        soft="#e3f1f0",
        journey="retirement-onboarding",
        campaign="retirement-2026-winter",
        campaign_name="冬の個人退職年金ご案内",
        marketer=("田中 美咲", "misaki"),
        approver=("小川 誠", "makoto"),
        operator=("西村 圭", "kei"),
        partners=(
            SamplePartner(
                "nagoya-sato", "佐藤 健", "sato", "ファイナンシャルアドバイザー", "名古屋支店", "名古屋市", "052-000-0101", "NG01",
                ("名古屋市", "春日井市", "豊田市"),
            ),
            SamplePartner(
                "sapporo-kudo", "工藤 真理", "kudo", "ファイナンシャルアドバイザー", "札幌支店", "札幌市", "011-000-0102", "SP02",
                ("札幌市", "江別市", "小樽市"),
            ),
        ),
    ),
    SampleBrand(
        key="hinode-insurance",
        name="ひので生命",
        legal_name="ひので生命保険株式会社",
        address="〒541-0000 大阪府大阪市中央区架空本町4-5-6",
        contact="0120-000-002（年中無休）",
        english=English(
            "Hinode Life",
            "Hinode Life Insurance Co., Ltd. (fictitious)",
            "4-5-6 Kakuhonmachi, Chuo-ku, Osaka 541-0000, Japan",
            "+81 120-000-002 (every day)",
        ),
        website="https://hinode-insurance.example",
        colour="#b4532a",
        soft="#faece5",
        journey="insurance-welcome",
        campaign="welcome-2026",
        campaign_name="ご契約ありがとうございます",
        marketer=("村上 彩", "aya"),
        approver=("後藤 修", "osamu"),
        operator=("大野 優", "yu"),
        partners=(
            SamplePartner(
                "kobe-mori", "森 直樹", "mori", "保険代理店 代表", "もり保険事務所", "神戸市", "078-000-0201", "KB11",
                ("神戸市", "芦屋市", "西宮市"),
            ),
            SamplePartner(
                "okayama-abe", "阿部 香織", "abe", "保険プランナー", "あべ保険サービス", "岡山市", "086-000-0202", "OK12",
                ("岡山市", "倉敷市", "総社市"),
            ),
        ),
        attributes={"policy_start": ("+3", "+4", "+3", "")},
    ),
    SampleBrand(
        key="genki-fitness",
        name="げんきフィットネス",
        legal_name="株式会社げんきフィットネス",
        address="〒220-0000 神奈川県横浜市西区架空7-8-9",
        contact="045-000-0003",
        english=English(
            "Genki Fitness",
            "Genki Fitness Co., Ltd. (fictitious)",
            "7-8-9 Kaku, Nishi-ku, Yokohama 220-0000, Japan",
            "+81 45-000-0003",
        ),
        website="https://genki-fitness.example",
        colour="#2f6fab",
        soft="#e6f0f9",
        journey="gym-new-year",
        campaign="new-year-2027",
        campaign_name="新年の入会特典 2027",
        marketer=("石川 千尋", "chihiro"),
        approver=("岡田 隆", "takashi"),
        operator=("原田 翔", "sho"),
        partners=(
            SamplePartner(
                "yokohama-ishii", "石井 翔太", "ishii", "店長", "横浜みなと店", "横浜市", "045-000-0301", "YH21",
                ("横浜市", "川崎市", "藤沢市"),
            ),
            SamplePartner(
                "sendai-goto", "後藤 葵", "goto", "店長", "仙台けやき店", "仙台市", "022-000-0302", "SD22",
                ("仙台市", "名取市", "多賀城市"),
            ),
        ),
    ),
    SampleBrand(
        key="aoba-motors",
        name="青葉モータース",
        legal_name="青葉モータース販売株式会社",
        address="〒812-0000 福岡県福岡市博多区架空10-11",
        contact="092-000-0004",
        english=English(
            "Aoba Motors",
            "Aoba Motors Sales Co., Ltd. (fictitious)",
            "10-11 Kaku, Hakata-ku, Fukuoka 812-0000, Japan",
            "+81 92-000-0004",
        ),
        website="https://aoba-motors.example",
        colour="#8a2f3c",
        soft="#f8e8ea",
        journey="dealer-year-end",
        campaign="year-end-2026",
        campaign_name="年末フェア 2026",
        marketer=("近藤 由美", "yumi"),
        approver=("長谷川 浩", "hiroshi"),
        operator=("石田 学", "manabu"),
        partners=(
            SamplePartner(
                "hakata-maeda", "前田 大輔", "maeda", "営業主任", "博多店", "福岡市", "092-000-0401", "HK31",
                ("福岡市", "春日市", "糸島市"),
            ),
            SamplePartner(
                "kumamoto-fujita", "藤田 直美", "fujita", "営業", "熊本店", "熊本市", "096-000-0402", "KM32",
                ("熊本市", "合志市", "菊陽町"),
            ),
        ),
        attributes={"current_car": ("アオバ ミラ", "アオバ ソラ", "アオバ カゼ")},
    ),
    SampleBrand(
        key="northwind-cloud",
        name="Northwind Cloud",
        legal_name="ノースウィンド・クラウド合同会社",
        address="〒105-0000 東京都港区架空台12-13",
        contact="partners@northwind-cloud.example",
        english=English(
            "Northwind Cloud",
            "Northwind Cloud LLC (fictitious)",
            "12-13 Kakudai, Minato-ku, Tokyo 105-0000, Japan",
            "partners@northwind-cloud.example",
        ),
        website="https://northwind-cloud.example",
        colour="#4d5aa8",
        soft="#ebedf8",
        journey="channel-nurture",
        campaign="fair-leads-2026",
        campaign_name="Fair leads, autumn 2026",
        marketer=("Lena Fischer", "lena"),
        approver=("池田 智子", "tomoko"),
        operator=("Grace Okafor", "grace"),
        partners=(
            SamplePartner(
                "tokyo-hashimoto", "橋本 拓也", "hashimoto", "Partner Manager", "ハシモト・システムズ", "東京都", "03-0000-0501", "TK41",
                ("港区", "品川区", "江東区"),
            ),
            SamplePartner(
                "kyoto-nakajima", "中島 恵子", "nakajima", "Account Executive", "中島情報", "京都市", "075-000-0502", "KT42",
                ("京都市", "宇治市", "長岡京市"),
            ),
        ),
        attributes={"lifecycle": ("lead", "lead", "prospect")},
        needs_company=True,
    ),
    SampleBrand(
        key="komorebi-dining",
        name="こもれびダイニング",
        legal_name="株式会社こもれびダイニング",
        address="〒390-0000 長野県松本市架空14-15",
        contact="0263-00-0006",
        english=English(
            "Komorebi Dining",
            "Komorebi Dining Co., Ltd. (fictitious)",
            "14-15 Kaku, Matsumoto, Nagano 390-0000, Japan",
            "+81 263-00-0006",
        ),
        website="https://komorebi-dining.example",
        colour="#4f7a3a",
        soft="#eaf2e5",
        journey="seasonal-coupon",
        campaign="winter-2026",
        campaign_name="冬のお品書き 2026",
        marketer=("清水 麻衣", "mai"),
        approver=("山崎 健一", "kenichi"),
        operator=("松田 玲子", "reiko"),
        partners=(
            SamplePartner(
                "matsumoto-ogawa", "小川 真由美", "ogawa", "店主", "松本店", "松本市", "0263-00-0601", "MT51",
                ("松本市", "安曇野市", "塩尻市"),
            ),
            SamplePartner(
                "kanazawa-hayashi", "林 和也", "hayashi", "料理長", "金沢店", "金沢市", "076-000-0602", "KZ52",
                ("金沢市", "野々市市", "白山市"),
            ),
        ),
    ),
)  # fmt: skip
