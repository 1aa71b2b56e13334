std = "lua54"
max_line_length = 120
cache = false
ignore = { "581" } -- `not (x >= y)`: not the same as `x < y` where x may be NaN
exclude_files = { "build/**" }
files["spec"].std = "lua54+busted"
files["lua/meta"].ignore = { "211", "212", "241", "431", "561" } -- types alone: nothing there is called
