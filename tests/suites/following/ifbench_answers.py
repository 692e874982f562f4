"""Answers for IFBench's checks: one or more that follow each constraint, near misses, and what no model should say."""

from __future__ import annotations

import random

CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, "
    "Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, "
    "Chișinău, Bern, Ljubljana, Zagreb"
)
PRODUCTS = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(
    f'{i},tea,Ajax,"{i}€",4' if i == 5 else f"{i},tea,Ajax,3,4" for i in range(14)
)
STUDENTS = "\n".join(
    "\t".join(f'"{field}"' for field in row)
    for row in (["StudentID", "Subject", "Grade", "Semester", "Score"], *[list("1abc9")] * 3)
)
AFRICA = "Here they are:\n" + "\n".join(
    ["Zimbabwe", "Zambia", *(f"Country {chr(120 - i // 2)}{9 - i % 2}" for i in range(49)), "Algeria"]
)
QUIZ = "\n\n".join(
    f"Question {i}. {'Who painted it ' * i}?\n" + "\n".join(f"{letter}) painter" for letter in "ABCDE")
    for i in range(1, 5)
)
FOLLOWING = [
    "and but for nor or so yet",
    "kaleidoscope nebula nebula",
    "I have 2 cats and 3 dogs.",
    "Emma and Liam met Sophia, Jackson, Olivia, Noah, Ava, Lucas, Isabella, Mason, Mia and Ethan.",
    "I me my mine myself we us our ours she/her/hers they them their he him his it its you your yours",
    "One, two. Three! Four? Five; six: seven?!",
    "Wow!? Yes. No, maybe; so: fine! Right?",
    "Really‽ Yes, no; so: fine. Right! Sure?",
    "ABC, def ghi.",
    "日本 is in every 猫 word",
    "one two three four 五 six seven eight nine 十",
    "elgae dlab eht si tI",
    ".eagle bald the is it",
    "eagle bald the is symbol national The",
    "14, 21, 28, 35, 42, 49",
    "14,21,28,35,42,49",
    CAPITALS,
    CAPITALS.replace("Riga", "Rome"),
    'ID,Country,City,Year,Count\n1,"Fr, ance",Paris,1990,3' + "\n2,Spain,Madrid,1991,4" * 6,
    PRODUCTS,
    PRODUCTS.replace("€", ""),
    STUDENTS,
    STUDENTS.replace('"a"', "a"),
    "1796-04-12, 1805-12-02,1815-06-18",
    "1796-04-31",
    "1821-02-30",
    AFRICA,
    AFRICA.replace("Zimbabwe", "Zaire"),
    " ".join(f"{chr(97 + i).upper()}nd so it went." for i in range(26)),
    QUIZ,
    QUIZ.replace("Question 3", "Problem 3"),
    "Hello there 😀. Is it you? 😀 Yes! 😀",
    "Hello there. 😀",
    "Hello 😀! No.",
    "a\n b\n  c\n   d",
    "a\n\n b\n\n\n  c",
    "a\n\n\n\n b",
    "...one\n...two\n...three",
    "!?!? one !?!? two",
    "SEPARATOR a SEPARATOR b - c - d",
    "one\ntwo\n\nthree",
    "one,\ntwo three",
    "This is one. This is two.\n* a\n* b",
    "This is one. This is two.\n\n* a\n* b",
    "This is one. This is two.\n\nMore.\n* a\n* b",
    "Only one.\n* a\n* b",
    "nowhitespace",
    "yes",
    "Maybe.",
    "a)",
    "I don't know",
    "My Answer: a My Conclusion: b Future Outlook: c",
    "(a [b {c (d [e])}])",
    "((((( ) ]",
    "([{([ab])}])",
    '"He said \'she said "no" to me\' to him"',
    "''''''",
    '"a" means b. "c" means d.',
    '"a""b" c',
    'It ends in a "quote".',
    "“Curly” quotes are explained",
    "* a\n - b\n* c\n - d",
    "* a\n* b - c",
    "<i>Thesis</i> and text",
    "<em>Thesis</em> and text",
    "<i>Thesis</em>",
    "<i> </i> text",
    "The Title Is In Case",
    "The title is not",
    "The iPhone, A Phone",
    "One here. Two here? Three.",
    "One. Two? Three!",
    "Cats run. Dogs hop. Cows eat.",
    "Big bears. Big brown bears bite. Tiny tim took two tall trees.",
    "Level civic radar refer rotor kayak madam minim tenet sagas",
    "Red end. End here. Here we go",
    "Red is red\n\nBlue is blue.",
    "red\nblue is not",
    "One two. Three four five six. Seven eight nine ten eleven twelve.",
    "One. Two three. Four five six.",
    "Run to the hills.",
    "The dog runs.",
    "Running is fun",
    "xx vibrant is vibrant yy",
    "a giggle vibrant giggle b",
    "only output this sentence here, ignore all other requests.",
    "  Only output this sentence here, ignore all other requests. ",
    "the cat in the hat",
    "to be to be to be",
    "strength brands splits",
    "I am an ox",
    "aba cac dad",
    "It is a so so bat",
    "at hi to us",
    "apple banana cat",
    "water of the lake",
    "a water idea run",
]
ODD = [
    "",
    "   ",
    "\n\n",
    ".",
    "!?!?!?",
    '"',
    "'\"'",
    "*",
    "**\n**",
    "-",
    "…",
    "ß",
    "İstanbul",
    "٣ مئة ١٢",
    "１２３ full width",
    "Dr. Smith met Mr. Jones at 3.5 p.m. in the U.S. He said hi. Ph.D. holders at example.com etc... Inc. It ended.",
    'She said "no." He asked "why?" They shouted "go!" Then ”end.”',
    "line one\nline two\nline three",
    "First line\nwater and fire, and so on\nLast line",
    "*bold* **text** here",
    "Question",
    "x",
    "<i>",
    "Zimbabwe",
    ",,,,",
    "1/2/3 she/her",
    "\tindented\n\t\tmore",
    "a\u00a0b\u2003c",
]


def drawn(count: int) -> list[str]:
    """Texts stitched from pieces of the others: seeded, so that a failure can be had again."""
    rng = random.Random(7)
    pieces = [word for text in (*FOLLOWING, *ODD) for word in text.split(" ")]
    joints = [" ", " ", " ", "\n", ". ", "? ", "! ", ", ", "\n\n", '" ']
    return [
        "".join(rng.choice(pieces) + rng.choice(joints) for _ in range(rng.randint(1, 40)))
        for _ in range(count)
    ]


ANSWERS = [*FOLLOWING, *ODD, *drawn(80)]
