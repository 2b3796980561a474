"""Search in contacts: the text of a contact in which words are looked for, and the folding of spellings on both sides. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

# Each group: the character to which the others are folded, then the others. Old and popular forms of the kanji in names and places.
KANJI_VARIANTS = """
高髙 崎﨑碕嵜 斎齋斉齊齎 辺邊邉 沢澤 広廣 浜濱濵 島嶋嶌 国國圀 桜櫻 円圓 恵惠 徳德 瀬瀨 真眞 浅淺 竜龍 条條 静靜 与與
柳栁桺 会會 寿壽 栄榮 渋澁澀 弥彌 曽曾 桑桒 富冨 峰峯 蔵藏 学學 実實 豊豐 吉𠮷 渕淵渊 遥遙 凛凜 槙槇 尭堯 岳嶽 芦蘆
桧檜 園薗 万萬 来來 仏佛 関關 鉄鐵鐡 駅驛 鴎鷗 穂穗 縁緣 総總 昇曻 悦悅 閲閱 黒黑 温溫 歴歷 暦曆 頼賴 緑綠 録錄
郎郞 礼禮 緒緖 毎每 増增 寛寬 巌巖 厳嚴 覚覺 観觀 歓歡 権權 勧勸 勲勳 薫薰 気氣 亀龜 帰歸 旧舊 挙擧 拠據 峡峽 狭狹
挟挾 暁曉 区區 駆驅 径徑 茎莖 経經 軽輕 渓溪 継繼 鶏鷄雞 芸藝 県縣 検檢 険險 剣劍劔剱釼 圏圈 顕顯 験驗 献獻 鉱鑛礦
号號 済濟 剤劑 砕碎 雑雜 参參 桟棧 賛贊 讃讚 残殘 糸絲 歯齒 児兒 辞辭 湿濕 写寫 釈釋 収收 従從 縦縱 粛肅 処處 叙敍
奨奬 将將 焼燒 称稱 証證 乗乘 剰剩 壌壤 嬢孃 譲讓 醸釀 触觸 嘱囑 慎愼 尽盡 図圖 粋粹 酔醉 随隨 髄髓 枢樞 数數 声聲
窃竊 摂攝 専專 戦戰 潜潛 践踐 銭錢 繊纖 禅禪 双雙 壮壯 荘莊 捜搜 挿插 装裝 騒騷 臓臟 属屬 続續 堕墮 対對 体體軆
帯帶 滞滯 台臺 滝瀧 択擇 担擔 胆膽 団團 断斷 弾彈 遅遲 痴癡 虫蟲 鋳鑄 庁廳 聴聽 勅敕 鎮鎭 逓遞 点點 転轉 伝傳 灯燈
当當 党黨 盗盜 稲稻 闘鬪 独獨 読讀 届屆 弐貳 悩惱 脳腦 廃廢 拝拜 売賣 麦麥 発發 髪髮 抜拔 蛮蠻 秘祕 瓶甁 払拂 併倂
並竝 変變 弁辨辯瓣 舗舖 宝寶 褒襃 翻飜 満滿 黙默 訳譯 薬藥 予豫 余餘 誉譽 揺搖 様樣 謡謠 欲慾 覧覽 乱亂 両兩 猟獵
塁壘 励勵 霊靈 齢齡 恋戀 炉爐 労勞 楼樓 湾灣 亜亞 悪惡 圧壓 囲圍 医醫 為爲 壱壹 飲飮 隠隱 営營 衛衞 塩鹽 艶艷 応應
欧歐 殴毆 奥奧 横橫 仮假 価價 画畫 壊壞 懐懷 絵繪 拡擴 殻殼 楽樂 缶罐 巻卷 陥陷 館舘 顔顏 犠犧 戯戲 偽僞 撃擊 欠缺
研硏 倹儉 呉吳 娯娛 効效 恒恆 黄黃 国國 歳歲 冊册 蚕蠶 惨慘 姉姊 舎舍 渋澁 獣獸 状狀 浄淨 畳疊 縄繩 寝寢 税稅 脱脫
説說 絶絕 戸戶 涙淚 内內 隣鄰 籠篭 薮藪 檮梼 祷禱 涛濤 瑶瑤 萌萠 頬頰 掴摑 填塡 剥剝 噛嚙 躯軀 繋繫 醤醬 蝉蟬 痩瘦
箪簞 蝋蠟 鯵鰺 麺麵 麹麴 莱萊 侠俠 杉椙 梁簗 草艸 床牀 船舩 橋𣘺 土𡈽 祢禰 爾尓 迩邇 祇衹 蕊蘂 鎌鐮 姫姬 兎兔莵
烟煙 頴穎 焔焰 鴬鶯 猪豬 槍鎗 凉涼 况況 冴冱 準准 昂昻 晃晄 棲栖 皓皜 聡聰 秋穐龝
"""

_KATAKANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)}
_SMALL = {ord("ゕ"): "か", ord("ゖ"): "け", ord("ヵ"): "か", ord("ヶ"): "け", ord("ヽ"): "ゝ", ord("ヾ"): "ゞ"}
_LATIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d", "þ": "th"})
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")


def _variants() -> dict[int, int | str]:
    folded: dict[int, int | str] = {}
    for group in KANJI_VARIANTS.split():
        folded.update({ord(other): group[0] for other in group[1:] if other != group[0]})
    return folded


_FOLDED: dict[int, int | str] = {**_KATAKANA, **_variants(), **_SMALL, **_DASHES}

# Names of attributes that hold the reading of a name, folded: フリガナ, 姓カナ, ヨミ, Phonetic Last Name.
_READING = re.compile(r"ふりがな|かな|よみ|読み|yomi|kana|phonetic|reading|furigana|^(せい|めい|sei|mei)$")


READINGS = ("フリガナ", "ふりがな")  # attributes that hold the reading of a whole name


def reading_attribute(attributes: Mapping[str, Any]) -> str:
    """Return the name of the attribute that holds, or is to hold, the reading of the contact's name."""
    return next((name for name in READINGS if name in attributes), READINGS[0])


def folded(text: str) -> str:
    """Return `text` as it is compared in a search.

    Small letters without accents; hiragana for katakana of any width; one form for the forms of a kanji (髙 and 高, 齋 and 斎);
    佐佐木 for 佐々木; without variation selectors.
    """
    plain = _without_accents(unicodedata.normalize("NFKC", text).casefold()).translate(_LATIN)
    return _repeated(plain.translate(_FOLDED))


def _without_accents(text: str) -> str:
    # Only the marks of Latin, Greek and Cyrillic letters, and variation selectors: が stays another letter than か.
    parts = unicodedata.normalize("NFD", text)
    kept = "".join(letter for letter in parts if not "\u0300" <= letter <= "\u036f" and not _is_selector(letter))
    return unicodedata.normalize("NFC", kept)


def _is_selector(letter: str) -> bool:
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"


def _repeated(text: str) -> str:
    return re.sub("(.)々", r"\1\1", text)


def search_words(text: str) -> list[str]:
    """Return the words of a search, folded."""
    return folded(text).split()


def search_text(last_name: str, first_name: str, others: Iterable[str | None], attributes: Mapping[str, Any]) -> str:
    """Return the folded text of a contact in which searches look: one line per name, field and reading.

    The name is there in both orders without a space: 鈴木花子 is written so as often as with one.
    """
    readings = [str(value) for name, value in attributes.items() if value and _READING.search(folded(name))]
    lines = [last_name + first_name, first_name + last_name, *others, *readings, "".join(readings)]
    return "\n".join(dict.fromkeys("".join(folded(line).split()) for line in lines if line))
