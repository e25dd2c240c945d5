"""Write what XLM-R's own tokenizer makes of some texts: make_piece_oracle.py TOKENIZER_JSON.

The file is that of intfloat/multilingual-e5-small (or XLM-R). The texts have what is easily
wrong: letters written as base and marks, ligatures, full width, invisible characters, blanks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import tokenizers

TEXTS = (
    "Hello, world!",
    "  two   blanks\tand a tab \n",
    "ti\u0302nh hi\u0300nh Vie\u0323\u0302t Nam",
    "cafe\u0301 und \u00ea\u0309 A\u030a",
    "\ufb01ne \uff26\uff55\uff4c\uff4c \uff5e \u2460 \u00bd \u2122 \u212b",
    "zero\u200bwidth\u200djoin\ufeffbom soft\u00adhyphen nbsp\u00a0here\u3000wide",
    "control\u0001char\u007f and \u2028 line \ufffd",
    "\u0915\u093c\u0932\u092e \u0958\u0932\u092e \u0924\u0941\u092e \u0915\u0939\u093e\u0901",
    "\u0e19\u0e49\u0e33 \u0e15\u0e31\u0e49\u0e07 \u0e19\u0e32\u0e2c\u0e34\u0e01\u0e32",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uad6d\uc5b4 \uff76\uff9e \u304b\u3099",
    "\u8bbe\u7f6e\u4e0b\u5348\u4e24\u70b9\u7684\u95f9\u949f \uff0c\u3002",
    "\u062d\u0637 \u0645\u0646\u0628\u0647 \ufefb \u0644\u0627 \u0640\u0640",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001d400\U0001d41b \u2603",
    "\u2581 and \u2581\u2581x <s> </s> <mask> <unk>",
    "",
    "\U00030000 \u16a0",
)
OUT = Path(__file__).parents[1] / "tests/oracles/xlmr_pieces.json"


def main() -> None:
    """Write texts, their normal form and their pieces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path, metavar="TOKENIZER_JSON")
    tokenizer = tokenizers.Tokenizer.from_file(str(parser.parse_args().tokenizer))
    rows = [
        {
            "text": text,
            "normal": tokenizer.normalizer.normalize_str(text),
            "pieces": tokenizer.encode(text).tokens,
        }
        for text in TEXTS
    ]
    note = (
        f"tools/make_piece_oracle.py, tokenizers {tokenizers.__version__}, tokenizer.json of "
        "intfloat/multilingual-e5-small"
    )
    OUT.write_text(json.dumps({"made by": note, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
