"""Papers: one entry per paper. `PAPERS` is the visible table."""

if __name__ != "dsf.papers":
    raise ImportError(f"this package is dsf.papers: import it by that name, not as {__name__}")

PAPERS: tuple[str, ...] = (
    # one line a paper
    "dsf.papers.sieber2024:PAPER",
    "dsf.papers.hassani2025:PAPER",
    "dsf.papers.zhang2025:PAPER",
    "dsf.papers.tarzanagh2023_svm:PAPER",
    "dsf.papers.tarzanagh2023_max_margin:PAPER",
    "dsf.papers.li2024:PAPER",
    "dsf.papers.julistiono2024:PAPER",
    "dsf.papers.sheen2024:PAPER",
    "dsf.papers.vasudeva2024:PAPER",
)
