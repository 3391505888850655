"""Makes one report of records: a page, Markdown, JSON or a picture, all from the same tables and charts.

::

    files --records.load--> Records --build.build--> Report: sections of tables and charts (content.py)
                                                        |-- page.render       one HTML file, charts inline as SVG
                                                        |-- markdown.render   GitHub's tables
                                                        |-- Report.to_json    the numbers
                                                        `-- figure.png        the main charts

A section is one module with one function: speed, traffic, timing, flight, scaling, to_accuracy, accuracy, fleet,
machines; and three of training.
"""
