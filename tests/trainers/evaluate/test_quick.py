"""The fixed subset is the same whenever it is made, and tells a denoiser from none."""

from __future__ import annotations

from engines.classical.nlm import CtNlm
from trainers.evaluate.aims import gain
from trainers.evaluate.cases import QUICK
from trainers.evaluate.denoisers import LOW_DOSE, of_engine
from trainers.evaluate.quick import quick_table


def test_it_is_fixed_and_a_filter_gains() -> None:
    (nlm,) = of_engine(CtNlm(), "ct-nlm", "ours")
    first, again = (quick_table([nlm], lambda _: None, 128) for _ in range(2))
    assert first.doses == QUICK.doses and first.patients == 2
    for dose in QUICK.doses:
        assert first.against("PSNR abdomen", ("ct-nlm", LOW_DOSE.name), dose, gain).value > 0.5
        values = [table.value("PSNR abdomen", "ct-nlm", dose) for table in (first, again)]
        assert values[0] == values[1]
