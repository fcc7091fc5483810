"""One file for each layout that images come in; all yield the types of `trainers.data.series`.

| layout       | module     | yields                                      |
|---|---|---|
| dicom        | dicom      | Series, from folders and archives           |
| npz          | volumes    | Series, from arrays with a JSON of headers  |
| mayo         | mayo       | PairedSeries: full and quarter dose         |
| deeplesion   | deeplesion | Series, from 16-bit PNG, and their lesions  |
| natural      | natural    | Picture, from PNG and JPEG                  |
"""
