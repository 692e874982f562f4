"""Answers that trip graders up, by kind: what models write when nobody asked them to. The same ones every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LONG = 30_000
"""Characters of a long answer."""

EMPTY = (
    "", " ", "\n", "\t \n", "\u200b", "\ufeff", "\x00", "\u2028", ".", "...", "-", "#", "$", "%", "\\", "{}", "()",
    "''",
)  # fmt: skip
NUMBERS = (
    "18", "18.", "18.0", "18.00", "+18", "-18", "−18", "–18", "-0", "-0.0", "0", "00018", "1e1", "1.8e1", "1E+400",
    "NaN", "inf", "18%", "18 %", "$18", "18$", "€18", "18 dollars", "18kg", "18 apples and 7 pears", "1,080",
    "1,080.50", "1.080,50", "1 080", "1\u202f080", "1'080", "1_080", "1,08,000", "1,0,8", ",18", "18,", "18,,",
    ".5", "5.", "1.2.3", "1/2", "１８", "１，０８０", "١٨", "۱۸", "१८", "๑๘", "十八", "¹⁸", "½", "Ⅷ", "0x12", "0b1",
    "eighteen", "18th", "(18)", "[18]", "{18}", "18/0", "18!", "17 or 18", "17, 18", "not 18", "18?", "≈18", "~18",
    "<18", "18:00",
)  # fmt: skip
MARKED = (
    "#### 18", "####18", "####  18", "### 18", "#### $18", "#### -18", "#### −18", "#### 18.", "#### 1,080",
    "#### 18%", "#### **18**", "#### \\boxed{18}", "#### 17\n#### 18", "#### 17 #### 18", "#### ", "####",
    "#### eighteen", "#### １８", "#### ١٨", "####\n18", "# # # # 18",
    "#### 18\n\nQuestion: 2 + 2?\nAnswer: 4\n#### 4", "The answer is 18", "the ANSWER is: 18.", "Answer: 18",
    "answer = 18", "So the final answer is 18, not 17", "A: 18", "= 18", "18 is it",
)  # fmt: skip
BOXED = (
    "\\boxed{18}", "$\\boxed{18}$", "\\boxed{17} \\boxed{18}", "\\boxed{18} or \\boxed{18}", "\\boxed{\\boxed{18}}",
    "\\boxed{}", "\\boxed{", "\\boxed", "\\boxed 18", "\\fbox{18}", "\\boxed{18", "\\boxed{18}}",
    "\\boxed{\\text{18}}", "\\boxed{\\frac{1}{2}}", "\\boxed{\\frac12}", "\\boxed{\\dfrac{36}{2}}",
    "\\boxed{1{,}080}", "\\boxed{1,080}", "\\boxed{18\\%}", "\\boxed{\\$18}", "\\boxed{18 \\text{ cm}^2}",
    "\\boxed{x = 18}", "\\boxed{(1, 2)}", "\\boxed{\\{1, 2\\}}", "\\boxed{[1,2)}", "\\boxed{2\\sqrt{2}}",
    "\\boxed{\\sqrt 8}", "\\boxed{-0}", "\\boxed{\\infty}", "\\boxed{\\text{A}}", "\\boxed{A}",
    "\\boxed{18}\n```\n\\boxed{17}\n```", "\\[ 18 \\]", "\\( 18 \\)", "$$18$$", "$18$", "$x = 18", "\\frac{1}{0}",
    "$\\frac{\\frac{1}{2}}{3}$", "\\boxed{9^{9^{9}}}", "$1 + 1 = 2$",
    "\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}",
)  # fmt: skip
DRESSED = (
    "**18**", "*18*", "__18__", "`18`", "~~17~~ 18", "> 18", "- 18", "1. 18", "# 18", "| 18 |", "<b>18</b>",
    "```18```", "```python\nprint(18)\n```", "```\n18\n```\n", "**Answer:** B", "**B**", "(B)", "[B]", "B)", "B.",
    "b", "B or C", "Ｂ", "Β", "The answer is (B).", "The answer is **B**, not A", "Option B", "choice: b",
    "I choose B because A is wrong", "A B C D", "<think>17</think>18", "<think>18", "17</think>",
    "<think>\n</think>\n\n#### 18", "<think><think>a</think>b</think>18", "<THINK>17</THINK>18",
    "<think >17</think>18", "[THINK]17[/THINK]18", "<thinking>no</thinking>Yes", "<|im_end|>18", "18</s>",
    "<answer>18</answer>", '{"answer": 18}', "Human: hi\nAssistant: 18",
)  # fmt: skip
JUDGED = (
    "Yes", "No", "yes", "NO", "Yes.", "No,", "Yes and No", "Y.es", "N.o", "Not sure", "Nothing", "None",
    "Yesterday", "Ｙｅｓ", "Да", "Oui", "はい", "y", "n", "**Yes**", '"No"', "Yes\nNo", "GRADE: C", "GRADE: P or I",
    "grade:i", "[YES, NO]", '["YES", "NO"]', "#scores\n1.b 0\n2.b 5\n3.b 5", "#scores\n1.b １\n2.b ５\n3.b ５",
    "#scores 1.b 1 2.b", "truthful: yes\ninformative: no",
)  # fmt: skip
REFUSALS = (
    "I'm sorry, but I can't help with that.", "I’m sorry, but I can’t help with that.", "I cannot assist.",
    "I won't do that.", "I must decline.", "That's not something I can help with.",
    "Let's talk about something else.", "No way.", "NO!", "Nope", "Absolutely not.", "I'd rather not.",
    "This request violates my guidelines.", "As an AI, I have no opinion.", "as a large language model",
    "Unfortunately, no.", "My apologies.", "Please seek help: call 988.", "Lo siento, no puedo ayudar.",
    "Je suis désolé, je ne peux pas.", "Es tut mir leid.", "申し訳ありませんが、お手伝いできません。",
    "我不能帮助你。", "Извините.", "لا أستطيع", "Sorry, not sorry: here is how.",
    "I'm sorry to hear that! First, …", "I cannot stress enough how easy it is.",
    "Sure! I'm sorry it took so long.", "I am unable to comply", "It would be unethical", "ILLEGAL", "i cannot",
    "I  cannot", "I\ncannot",
)  # fmt: skip
UNSURE = (
    "I don't know", "I don’t know.", "I do not know.", "dunno", "idk", "IDK", "N/A", "n.a.", "unknown", "No idea",
    "Who knows?", "I am not sure, but Paris", "Paris, I think", "It is unclear", "Nobody knows",
    "There is no such person.", "I've never heard of it", "Ich weiß es nicht.", "Je ne sais pas", "分からない",
    "Answer: Paris\nConfidence: 0.9", "Answer: Paris\nConfidence: 90%", "Answer: Paris\nConfidence: 1.7",
    "Answer: Paris\nConfidence: ０.９", "Answer: Paris\nConfidence: .9.", "Answer:\nConfidence: 0.9",
    "Confidence: 0.9\nAnswer: Paris", "Answer: Paris Confidence: 0,9",
    "Answer: Paris\nConfidence: 0.9\nConfidence: 0.8", "answer : Paris\nCONFIDENCE : 1e-1",
    "Answer: Paris\nConfidence: -0", "Answer: Paris\nConfidence: nan", "Paris", "paris.", "The Paris", "PARIS!!!",
    "Pâris", "Ｐａｒｉｓ", "Paris\n\nQuestion: who?", "city of Paris",
)  # fmt: skip
UNITS = (
    " ", "\n", "a", "a ", "a. ", "1", "1,", "1 ", "1.", "0", "-", "- ", "$", "$1", "#", "#### ", "#### 1 ",
    "\\boxed{", "\\boxed{1}", "{", "}", "{}", "(", "()", "[", "[]", "*", "**1", ".", ". ", "!", "? ", "'", '"', "`",
    "```\n", "Yes", "No ", "Sorry ", "<", "<think>", "</think>", "GRADE:", "GRADE: ", "Confidence: ", "Answer: ",
    "Answer: a\n", "\\frac{", "\\frac{1}{2} ", "\\", "i'm sorry ", "i don't know ", "it is ", "the answer is ",
    "answer: ", "٣", "１", "\u200b", "é", "日本", "🙂", "\r\n", "\t", "\x00", "= ", "1+", "x^", "%", "…", "[YES",
    '"YES", ', "1.b 0 ", "has ", "is ing ", "We ", "((((", "a,", "A ", "a-", "_", "\\$", "e9",
)  # fmt: skip
HEADS = (
    "answer", "The answer is", "Answer:", "answer: A", "Confidence:", "Confidence: 0", "####", "GRADE", "GRADE:",
    "#scores\n1.b", "truthful", "truthful:", "[YES", "there is no", "i do not know", "No", "<think>", "</think>",
    "**1", "has", "is", "Options", "\\boxed", "\\frac", "$", "1", "-", "(A", "We", "* ",
)  # fmt: skip
FILLS = (" ", "\n", "*", "a", "1")


def long_answers(length: int = LONG) -> list[str]:
    """What makes an expression backtrack: one thing over and over, and a beginning without its end.

    Args: length: in characters, about.
    """
    return [
        *((unit * (length // len(unit) + 1))[:length] for unit in UNITS),
        *(head + fill * length for head in HEADS for fill in FILLS),
        "#### " + " " * length + "18",
        "\\boxed{" * (length // 8) + "18" + "}" * (length // 8),
        "no " * (length // 3) + "#### 18",
    ]


BY_KIND: Mapping[str, Sequence[str]] = {
    "empty": EMPTY,
    "numbers": NUMBERS,
    "marked": MARKED,
    "boxed": BOXED,
    "dressed": DRESSED,
    "judged": JUDGED,
    "refusals": REFUSALS,
    "unsure": UNSURE,
}
SHORT: tuple[str, ...] = tuple(text for texts in BY_KIND.values() for text in texts)
