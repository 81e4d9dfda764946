import unittest

from briefs.layout import lines_of
from briefs.model import Brief, Section


class LayoutTest(unittest.TestCase):
    def test_wraps_long_paragraphs(self):
        brief = Brief("T", "C", (Section("Goal", "word " * 40),))
        self.assertTrue(all(len(line) <= 72 for line in lines_of(brief)))

    def test_sets_sections_apart(self):
        brief = Brief("T", "C", (Section("One", "a"), Section("Two", "b")))
        self.assertEqual(lines_of(brief), ["ONE", "a", "", "TWO", "b"])

    def test_keeps_blank_lines(self):
        brief = Brief("T", "C", (Section("One", "a\n\nb"),))
        self.assertEqual(lines_of(brief), ["ONE", "a", "", "b"])
