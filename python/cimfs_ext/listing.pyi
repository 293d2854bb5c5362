from typing import final

@final
class Children: ...
