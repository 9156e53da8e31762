"""For the reference of the documentation site: what is written in another way than its callers see it."""

import griffe


class AsCallersSee(griffe.Extension):
    """Takes `Flow[…]` off what a method of both clients returns, and tells a struct's fields as arguments."""

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        written_as_flow = any(str(decorator.value).endswith("sync_and_async") for decorator in func.decorators)
        if written_as_flow and isinstance(func.returns, griffe.ExprSubscript):
            func.returns = func.returns.slice

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        if "msgspec.Struct" not in map(str, cls.bases) or "__init__" in cls.members:
            return
        kind = griffe.ParameterKind.positional_or_keyword
        fields = [
            griffe.Parameter(name, annotation=field.annotation, kind=kind, default=field.value)
            for name, field in cls.members.items()
            if isinstance(field, griffe.Attribute) and field.annotation is not None
        ]
        made = griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self", kind=kind), *fields))
        cls.set_member("__init__", made)
