import unittest

from briefs.export import export, paginate
from briefs.model import Brief, Section


def lines(count):
    return [f"line {number}" for number in range(1, count + 1)]


class PaginateTest(unittest.TestCase):
    def test_a_short_brief_is_one_page(self):
        self.assertEqual(paginate(lines(3)), [lines(3)])

    def test_an_empty_brief_is_one_page(self):
        self.assertEqual(paginate([]), [[]])

    def test_full_pages(self):
        self.assertEqual([len(page) for page in paginate(lines(100))], [50, 50])

    def test_a_long_brief_keeps_its_end(self):
        pages = paginate(lines(120))
        self.assertEqual([line for page in pages for line in page], lines(120))


class ExportTest(unittest.TestCase):
    def test_pages_carry_header_and_footer(self):
        text = export(Brief("Spring launch", "Lumen", (Section("Goal", "Be seen."),)))
        self.assertTrue(text.startswith("Spring launch (Lumen)\n====="))
        self.assertTrue(text.endswith("page 1 of 1"))
