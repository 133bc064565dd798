"""What a person sees and does on the page: `page.py WHAT ADMIN FOLDER`, where pictures go."""

import asyncio
import importlib.util
import json
import pathlib
import sys

from browser import Browser

what, admin, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
HOME = f"http://{admin}/"
PHASE = "document.querySelector('.phase').textContent"
LAST = """(chart) => {
    const figure = document.querySelector(`figure[data-chart="${chart}"]`);
    return figure.querySelector('[role=img]').getAttribute('aria-label');
}"""


def told(line):
    """Tells the test, which may do something about it."""
    print(line, flush=True)


async def heard():
    """Waits for a word of the test."""
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip()


async def is_clean(page):
    assert page.complaints == [], page.complaints
    away = [url for url in page.requests if not url.startswith((HOME, "about:", "data:"))]
    assert away == [], away


async def fits(page):
    """Nothing is wider than the window."""
    wide = await page.do("""[...document.querySelectorAll('body *')]
        .filter((one) => !one.closest('.scroll table') && !one.closest('.skip')
            && one.getBoundingClientRect().right > innerWidth + 1)
        .map((one) => one.outerHTML.slice(0, 120))""")
    over = await page.do("document.documentElement.scrollWidth - innerWidth")
    assert over <= 0 and wide == [], (over, wide)


async def is_accessible(page):
    module = importlib.util.find_spec("axe_playwright_python").origin
    await page.do(pathlib.Path(module).with_name("axe.min.js").read_text() + "; 0")
    found = await page.do("axe.run().then((result) => result.violations)")
    grave = [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]])
             for one in found if one["impact"] in ("serious", "critical")]
    assert grave == [], json.dumps(grave, indent=1)


async def watch(page):
    """A rollout under way: charts move, at any width, in both colours, for every reader."""
    await page.look(1280)
    await page.open(HOME)
    await page.until("document.getElementById('connection').textContent === 'Live'")
    await page.until("document.querySelectorAll('figure canvas').length >= 5")
    await page.until("document.querySelector('.headline').textContent.includes('v2')")
    for chart in ["errors", "latency", "evidence", "weight", "rps"]:
        # What is said under each chart changes with its lines.
        await page.do(f"window.before = ({LAST})('{chart}')")
        if chart not in ("errors", "weight"):
            await page.until(f"({LAST})('{chart}') !== window.before")
    desired = await page.do("document.querySelectorAll('.stages li').length")
    assert desired >= 3, desired
    await page.until("document.querySelectorAll('.transitions tbody tr').length >= 1")
    await page.until("document.querySelector('.endpoints').querySelectorAll('tbody tr').length === 2")
    # A service without a rollout has nothing to say of one.
    plain = "document.querySelector('[data-service=plain]')"
    await page.until(f"{plain}.querySelector('.phase').textContent === 'no rollout'")
    shown = await page.do(f"""['.outlook', '.conditions', '.transitions', '[data-chart=evidence]']
        .filter((one) => {plain}.querySelector(one).checkVisibility())""")
    assert shown == [], shown
    await page.until("document.querySelectorAll('.conditions li').length >= 4")
    for dark in [False, True]:
        for width in [1280, 360]:
            await page.look(width, 900 if width > 600 else 740, dark=dark)
            await fits(page)
            await is_accessible(page)
            await page.look(width, 1_900 if width > 600 else 3_400, dark=dark)
            await page.shot(folder / f"page-{width}-{'dark' if dark else 'light'}.png")
    await page.look(1280)
    for window in ["3h", "24h", "10m"]:
        await page.do(f"document.querySelector('[name=window][value=\"{window}\"]').click()")
    await page.until(f"({LAST})('rps').includes('stable')")
    await is_clean(page)


async def rollback(page):
    """A rollback is seen, with its cause, soon after it happened."""
    await page.look(1280)
    await page.open(HOME)
    await page.until(f"{PHASE}.startsWith('progressing')")
    await page.do("""window.seen = new Promise((done) => new MutationObserver(() => {
        if (document.querySelector('.phase').textContent.startsWith('rolled back')) done(Date.now());
    }).observe(document.querySelector('.phase'), { childList: true, characterData: true, subtree: true })); 0""")
    told("watching")
    seen = await page.do("window.seen")
    await page.until("document.querySelector('.outlook').dataset.mood === 'bad'")
    await page.until("document.querySelector('.transitions tbody').textContent.includes('rolled\u00a0back')")
    why = await page.do("document.querySelector('.transitions tbody td.why').textContent")
    assert "against the canary" in why, why
    await page.shot(folder / "rolled-back.png")
    await is_clean(page)
    told(f"seen {seen}")


async def act(page):
    """Without a token nothing is shown; one that may look does not act; one that may acts."""
    await page.look(1280)
    await page.open(HOME)
    await page.until("document.getElementById('token').open")
    assert await page.do("document.querySelectorAll('article').length") == 0
    # Whoever leaves the question is not asked again and again.
    await page.key("Escape")
    await page.until("document.getElementById('connection').textContent.includes('press')")
    await page.do("document.getElementById('token-open').click()")
    await page.until("document.getElementById('token').open")
    await page.write("looks-only-0123456")
    await page.key("Enter")
    await page.until(f"{PHASE}.startsWith('progressing')")
    # By keyboard alone from here on.
    await page.do("document.querySelector('[data-action=pause]').focus()")
    await page.key("Enter")
    await page.until("document.getElementById('confirm').open")
    await page.key("Escape")
    await page.until("!document.getElementById('confirm').open")
    assert (await page.do(PHASE)).startswith("progressing")
    await page.key("Enter")
    await page.until("document.getElementById('confirm').open")
    # A question that follows another at once is not answered by that one's end.
    await page.do("""document.getElementById('confirm').close('cancel');
        document.querySelector('[data-action=pause]').click()""")
    await page.until("document.getElementById('confirm').open")
    await page.do("document.getElementById('confirm-do').focus()")
    await is_accessible(page)
    await page.key("Enter")
    await page.until("document.getElementById('notice').textContent.includes('may look, not act')")
    await page.until("document.getElementById('token').open")
    assert (await page.do(PHASE)).startswith("progressing")
    await page.write("acts-too-012345678")
    await page.key("Enter")
    await page.until(f"{PHASE}.startsWith('paused')")
    await page.do("document.querySelector('[data-action=weight]').click()")
    await page.do("document.querySelector('[name=weight]').value = '17.5'")
    await page.do("document.getElementById('confirm-do').click()")
    await page.until(f"{PHASE} === 'paused at 17.5 %'")
    await page.until("document.querySelector('.transitions tbody').textContent.includes('page')")
    # Refusals are answers that the browser itself logs.
    refusals = [one for one in page.complaints if "401" in one or "403" in one]
    assert len(refusals) == len(page.complaints) == 2, page.complaints


async def restart(page):
    """The page goes on when the server does, and keeps what it has seen."""
    await page.look(1280)
    await page.open(HOME)
    await page.until(f"{PHASE}.startsWith('progressing')")
    told("stop")
    await page.until("document.getElementById('connection').classList.contains('lost')")
    told("start")
    assert await heard() == "started"
    await page.until("document.getElementById('connection').textContent === 'Live'")
    await page.until(f"{PHASE}.startsWith('progressing')")
    await page.until("document.querySelector('.transitions tbody tr')")


async def main():
    async with Browser() as page:
        await globals()[what](page)
    told("done")


asyncio.run(main())
