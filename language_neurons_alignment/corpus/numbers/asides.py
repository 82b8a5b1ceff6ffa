"""What stands in an answer and is not the answer: the next question that a model asks itself, remarks, brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .clean import BOX
from .phrases import NOUN

_QUESTION = re.compile(
    r"(?im)^[ \t>*#_-]*(?:(?:question|problem|q|exercise|instruction|human|user|frage|aufgabe|pregunta|problema|"
    r"ejercicio|problème|exercice|вопрос|задача|swali|pergunta|domanda|问题|問題|题目|প্রশ্ন|โจทย์|คำถาม|ప్రశ్న|प्रश्न|سؤال)"
    r"(?P<numbered>\s*#?\d+)?[\s*_]*(?:[:：]|$)|\[INST\])"
)
_REMARK = re.compile(
    r"(?:(?m:^)|(?<=[.。।!?(\n]))[ \t>*#_-]*(?:note|nb|n\.b\.|p\.s\.|hint|check|verification|remark|hinweis|anmerkung|"
    r"probe|überprüfung|nota|observación|comprobación|verificación|remarque|vérification|примечание|замечание|проверка|"
    r"kumbuka|注意?|备注|提示|验算|检验|補足|備考|検算|দ্রষ্টব্য|বি\.?\s?দ্র\.?|নোট|হিসাব যাচাই|หมายเหตุ)"
    r"[\s*_]*:\s*(?:[^\n)]|\([^()\n]*\))*",
    re.IGNORECASE,
)
_BRACKET = re.compile(rf"(\d[^\n()\[\].。।=:;+×÷/−–-]{{0,30}})\([^()=#{BOX}]*\)")


def own_questions(text: str) -> Iterator[tuple[int, bool]]:
    r"""Where a text goes over to a question of the model's own, and whether it is a numbered one.

    Few-shot prompts teach it: "… The answer is 18.\n\nQuestion: Leah had 32 chocolates …". A numbered question may be
    a step of the same problem.
    """
    for found in _QUESTION.finditer(text):
        yield found.start(), bool(found["numbered"])


def without_asides(text: str) -> str:
    """The text without remarks ("Note: …") and without brackets that explain a number: "18 dollars (2 for each egg)".

    Kept are remarks that announce an answer, and brackets with a number alone, "(24)", or an equation.
    """
    text = _REMARK.sub(lambda found: found[0] if NOUN.search(found[0]) or BOX in found[0] else "", text)
    return _BRACKET.sub(lambda found: found[1] if _has_words(found[0][len(found[1]) :]) else found[0], text)


def _has_words(bracket: str) -> bool:
    return bool(re.search(r"[^\W\d_]", bracket))
