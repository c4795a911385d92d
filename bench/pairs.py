"""A server with Meridian's part beside the same server without it: load in turn, medians of ratios."""

import os
import statistics

TICK = os.sysconf("SC_CLK_TCK")
KINDS = ("stock", "meridian")


def cpu_seconds(*pids):
    """What these processes have used of the processor so far."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def compare(rounds, load):
    """`load(kind)` gives (operations a second, CPU microseconds an operation). A busy machine
    troubles neighbouring runs alike, so their ratios say more than the figures (1: as fast as stock).
    """
    runs = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            runs[kind].append(load(kind))
    pairs = list(zip(runs["meridian"], runs["stock"]))
    median = statistics.median
    return {
        "stock_rate": median(rate for rate, _ in runs["stock"]),
        "meridian_rate": median(rate for rate, _ in runs["meridian"]),
        "ratio_rate": median(ours[0] / stock[0] for ours, stock in pairs),
        "stock_cpu_us": median(cpu for _, cpu in runs["stock"]),
        "meridian_cpu_us": median(cpu for _, cpu in runs["meridian"]),
        "ratio_cpu": median(stock[1] / ours[1] for ours, stock in pairs),
    }


def show(title, unit, rows):
    """A table; `rows` maps a name to what compare() gave."""
    print(f"{title:24} {'stock ' + unit[0] + '/s':>10} {'with module':>12} {'ratio':>6}"
          f"   {'CPU µs/' + unit:>16} {'ratio':>6}")
    for name, row in rows.items():
        cpu = f"{row['stock_cpu_us']:.2f} / {row['meridian_cpu_us']:.2f}"
        print(f"{name:24} {row['stock_rate']:10.0f} {row['meridian_rate']:12.0f}"
              f" {row['ratio_rate']:6.3f}   {cpu:>16} {row['ratio_cpu']:6.3f}")
