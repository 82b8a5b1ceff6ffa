"""Charts as data (`charts`), their drawing (`draw`), one function per figure (`figures`), every colour (`colours`)."""
