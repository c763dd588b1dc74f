"""A catalogue of the data in a folder: STAC for people's programs, an index for ours.

    <folder>/catalog.json                            the STAC catalogue, with a sub-catalogue for each site and year
    <folder>/catalog/<site>/<year>/<scene>.item.json the items: what is read of each scene, and which files it has
    <folder>/catalog.parquet                         all items in one GeoParquet table, which is what thawmap reads

`write` makes it of the scenes on disk with the readers of `data/sources`, `read` finds scenes in it without opening
their files, `audit` compares a folder with checksums. A catalogue is believed as far as the files are as it saw them:
every file's size and time of last change, and which files there are in a scene's folders.
"""
