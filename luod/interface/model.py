"""What every model of the wire has in common."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from luod import names
from luod.errors import InvalidParameter

SessionName = Annotated[str, AfterValidator(names.session_name)]
FileName = Annotated[str, AfterValidator(names.file_name)]
Labels = Annotated[dict[str, str], AfterValidator(names.labels)]
Token = Annotated[int, Field(ge=0, le=names.TOKEN_MAX)]
FileDescriptorIndex = Annotated[int, Field(ge=0)]
Uid = Annotated[int, Field(ge=0, lt=2**32 - 1)]


class Model(BaseModel):
    """Something on the wire. Python's names are snake_case, the wire's camelCase."""

    model_config = ConfigDict(alias_generator=names.camel, strict=True, extra="forbid")

    def wire(self) -> dict[str, Any]:
        """The JSON object, without what is null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Parameters(Model):
    """What a method takes. What it doesn't know is refused."""

    @classmethod
    def read(cls, parameters: dict[str, Any]) -> Self:
        """Validate a call's parameters. Raises InvalidParameter, which names the first that is wrong."""
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise InvalidParameter(_path(first["loc"]), first["msg"].removeprefix("Value error, ")) from None


class Reply(Model):
    """What a method answers. Clients pass over fields that they don't know."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".") or "parameters"
