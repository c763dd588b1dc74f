"""Reading the pages that reports write."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags of a page with their attributes, checked for balance."""

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
