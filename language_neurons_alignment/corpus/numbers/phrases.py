"""How an answer is announced: "The answer is", "Ответ:", "答えは", "উত্তর হল", "คำตอบคือ", "Jibu ni"."""

from __future__ import annotations

import re

_NO_LETTER = r"(?![^\W\d_])"
NOUN = re.compile(
    rf"\b(?:answer|ans|antwort|lösung|ergebnis|respuesta|resultado|réponse|reponse|ответ|jibu|jawabu|resposta|risposta|"
    rf"antwoord|odpowiedź|cevap|jawaban){_NO_LETTER}"
    r"|答案|答え|こたえ|解答|回答|答(?=\s*[:は是为為])|উত্তর|উঃ|คำตอบ|ตอบ(?=\s*[:\d])"
    r"|సమాధానం|उत्तर|जवाब|الجواب|الإجابة|đáp án|정답|답",
    re.IGNORECASE,
)
"""In one list for all languages: a model that is asked in one may answer in another."""

_COPULA = (
    rf"\b(?:is|equals|ist|lautet|beträgt|wäre|es|sería|est|equivale|é|è|равен|равно|равна|это|составляет|ni|adalah|jest|là)"
    rf"{_NO_LETTER}|是|为|為|は|হলো|হল|হচ্ছে|হবে|คือ|เท่ากับ|[—–-](?=\s)"
)
LINK = re.compile(rf"[^\n.。।!?:=\d]{{0,40}}?(?:(?P<colon>[:=ঃ]|(?=\n))|{_COPULA})", re.IGNORECASE)
"""From the noun to what it announces, across a few words: "The answer to the question is"."""

_AROUND = (
    r"approximately|approx\.?|about|exactly|only|just|equal\s+to|etwa|ungefähr|genau|ca\.|insgesamt|environ|exactement|de|"
    r"aproximadamente|unos|unas|примерно|около|ровно|takriban|kama|jumla\s+ya|"
    r"usd|us|eur|ksh\.?|kes|tsh\.?|sh\.?|rs\.?|tk\.?|bdt|thb|rmb|cny|jpy|rub|dola|dolari|shilingi|elfu|laki|milioni|dollars?|x\s*="
)
_GLUED = r"প্রায়|ประมาณ|大约|一共|总共|[约約共为是]"
_SIGNS = r"""[\s*_`"'“”„«»‘’()\[\],、，~≈$€£¥₹₽\ue000:=—–−-]"""
DIRECTLY = re.compile(rf"(?:{_GLUED}|{_SIGNS}|(?:{_AROUND}){_NO_LETTER})*", re.IGNORECASE)
"""What may stand between an announcement and its number."""

SENTENCE_END = re.compile(r"[。।!?\n\ue001]|\.(?=\s|$|[^\W\d])")
