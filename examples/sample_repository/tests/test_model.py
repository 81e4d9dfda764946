import unittest

from briefs.model import Brief, InvalidBriefError, Section


class ModelTest(unittest.TestCase):
    def test_reads_a_brief(self):
        brief = Brief.from_json(
            '{"title": "Spring launch", "client": "Lumen",'
            ' "sections": [{"heading": "Goal", "body": "Be seen."}]}'
        )
        self.assertEqual(brief, Brief("Spring launch", "Lumen", (Section("Goal", "Be seen."),)))

    def test_sections_may_be_absent(self):
        self.assertEqual(Brief.from_json('{"title": "T", "client": "C"}').sections, ())

    def test_refuses_what_is_no_brief(self):
        for text in ("", "[]", '{"title": "T"}', '{"title": 1, "client": "C"}'):
            with self.subTest(text), self.assertRaises(InvalidBriefError):
                Brief.from_json(text)
