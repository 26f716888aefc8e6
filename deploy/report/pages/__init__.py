"""Reports as small offline sites: plain files that need no server and ask nobody for anything.

:mod:`deploy.report.pages.site` writes them; each other module makes the content of one page from
the data, and ``templates`` say what it looks like.
"""
