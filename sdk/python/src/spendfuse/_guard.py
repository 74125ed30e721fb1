"""The decorator: for functions, coroutine functions, generators and async generators."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, AsyncGenerator, Callable, Generator, Mapping, Optional

from ._context import Applied, checked

if TYPE_CHECKING:
    from ._client import Spendfuse


def guarded(sf: Spendfuse, function: Callable[..., Any], model: Optional[str], context: Mapping[str, Any]) -> Any:
    def fields_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        return checked({name: value(*args, **kwargs) if callable(value) else value for name, value in context.items()})

    def permit(fields: Mapping[str, Any]) -> None:
        with Applied(fields):
            sf.check(model=model).raise_for_block()

    async def apermit(fields: Mapping[str, Any]) -> None:
        with Applied(fields):
            (await sf.acheck(model=model)).raise_for_block()

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            fields = fields_of(args, kwargs)
            await apermit(fields)
            inner = function(*args, **kwargs)
            # The context is put in place for each step and taken away before its value goes out: one
            # that stayed over a `yield` would be the consumer's, too.
            step: Callable[[], Any] = functools.partial(inner.asend, None)
            try:
                while True:
                    with Applied(fields):
                        try:
                            value = await step()
                        except StopAsyncIteration:
                            return
                    try:
                        step = functools.partial(inner.asend, (yield value))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  thrown in by the consumer
                        step = functools.partial(inner.athrow, error)
            finally:
                with Applied(fields):
                    await inner.aclose()

        return async_generator

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            fields = fields_of(args, kwargs)
            permit(fields)
            inner = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(inner.send, None)
            try:
                while True:
                    with Applied(fields):
                        try:
                            value = step()
                        except StopIteration as end:
                            return end.value
                    try:
                        step = functools.partial(inner.send, (yield value))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  thrown in by the consumer
                        step = functools.partial(inner.throw, error)
            finally:
                with Applied(fields):
                    inner.close()

        return generator

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            fields = fields_of(args, kwargs)
            await apermit(fields)
            with Applied(fields):
                return await function(*args, **kwargs)

        return coroutine

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        fields = fields_of(args, kwargs)
        permit(fields)
        with Applied(fields):
            return function(*args, **kwargs)

    return plain
