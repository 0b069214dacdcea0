"""The house rules as small analysers: each returns its findings as lines of text, an empty list being good news.

They read source text and import graphs, never running services, so that the default test run can afford all of them.
"""
