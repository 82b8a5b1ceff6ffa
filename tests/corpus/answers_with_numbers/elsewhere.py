"""Answers in other languages, or in another than the question's: (language asked in, answer, number)."""

from __future__ import annotations

ELSEWHERE = [
    ("te", "9+20=29 సమాధానం 29.", "29"),
    ("te", "సమాధానం ౨౯", "29"),
    ("ar", "الجواب هو ١٢٣", "123"),
    ("ar", "المجموع ١٬٢٣٤٫٥", "1234.5"),
    ("fa", "جواب: ۱۸", "18"),
    ("hi", "उत्तर: १८ रुपये", "18"),
    ("hi", "कुल ₹1,23,456", "123456"),
    ("pt", "A resposta é 1.234,5", "1234.5"),
    ("pt-BR", "Custa R$ 1.500", "1500"),
    ("it", "La risposta è 3,5", "3.5"),
    ("ko", "정답: 18개", "18"),
    ("en", "La respuesta es 70.000,50", "70000.50"),
    ("sw", "The answer is 1,234.", "1234"),
    ("ar", "الجواب هو ١٨ دولارًا.", "18"),
    ("hi", "उत्तर: १,२३,४५६ रुपये", "123456"),
    ("te", "సమాధానం 18.", "18"),
]  # fmt: skip
