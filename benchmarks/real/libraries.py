from benchmarks.real.case import Case
def cases() -> list[Case]:
    return []
