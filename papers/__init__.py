"""Papers: one entry per paper. `PAPERS` is the visible table."""

if __name__ != "dsf.papers":
    raise ImportError(f"this package is dsf.papers: import it by that name, not as {__name__}")

PAPERS: tuple[str, ...] = (
    # one line a paper
    "dsf.papers.sieber2024:PAPER",
    "dsf.papers.hassani2025:PAPER",
    "dsf.papers.zhang2025:PAPER",
    "dsf.papers.dao2024:PAPER",
    "dsf.papers.gu2023:PAPER",
    "dsf.papers.yang2023:PAPER",
    "dsf.papers.katharopoulos2020:PAPER",
    "dsf.papers.yang2024:PAPER",
    "dsf.papers.schlag2021:PAPER",
    "dsf.papers.behrouz2025:PAPER",
    "dsf.papers.feng2024:PAPER",
    "dsf.papers.vaswani2017:PAPER",
    "dsf.papers.lahoti2026:PAPER",
    "dsf.papers.gu2021:PAPER",
    "dsf.papers.orvieto2023:PAPER",
    "dsf.papers.guo2025:PAPER",
    "dsf.papers.ghodsi2025:PAPER",
    "dsf.papers.dewilde1998:PAPER",
    "dsf.papers.sandberg2004:PAPER",
    "dsf.papers.heinsen2023:PAPER",
    "dsf.papers.higham2002:PAPER",
    "dsf.papers.tarzanagh2023_svm:PAPER",
    "dsf.papers.tarzanagh2023_max_margin:PAPER",
    "dsf.papers.li2024:PAPER",
    "dsf.papers.julistiono2024:PAPER",
    "dsf.papers.sheen2024:PAPER",
    "dsf.papers.vasudeva2024:PAPER",
    "dsf.papers.qin2024_lightning:PAPER",
    "dsf.papers.qin2024_lightning2:PAPER",
    "dsf.papers.dao2022:PAPER",
    "dsf.papers.ramapuram2024:PAPER",
    "dsf.papers.feng2024_attention:PAPER",
)
